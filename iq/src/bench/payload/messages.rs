//! The messages that a client sends in a stream.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use fastrand::Rng;
use iip_core::Printable;
use iip_rpc::schema::{Description, Method, Type};
use iip_rpc::{JsonText, Status, Stream};

use super::template::{Around, Template};
use super::{TRIALS, sample};
use crate::call::{message, text_in};
use crate::exit::{Failure, Outcome};

/// The messages of calls. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Messages(Arc<Maker>);

#[derive(Debug)]
struct Maker {
    /// The sources of the messages, which are used in turn.
    sources: Vec<Source>,
    /// The number of messages that a call sends.
    count: u64,
    service: Description,
    ty: Type,
}

#[derive(Debug)]
enum Source {
    Fixed(JsonText),
    Template(Template),
    /// The description of the service.
    Description,
}

impl Messages {
    /// Reads the messages of the command line, and makes some to find mistakes. Without given
    /// messages, they are made from the description.
    pub(in crate::bench) async fn read(
        given: &[String],
        count: Option<u64>,
        service: &Description,
        method: &Method,
        seed: u64,
    ) -> Outcome<Self> {
        let name = Printable(format!("{}.{}", service.service, method.name)).to_string();
        let mut random = Rng::with_seed(seed);
        let mut maker = Maker {
            sources: Vec::new(),
            count: 1,
            service: service.clone(),
            ty: method.requests.clone().unwrap_or_default(),
        };
        for (place, text) in lines(given).await? {
            let source = maker.source(&text, &mut random).map_err(|reason| {
                Failure::Usage(format!("{name}: {place}: {}", Printable(reason)))
            })?;
            maker.sources.push(source);
        }
        if maker.sources.is_empty() {
            maker.sources.push(Source::Description);
            maker
                .try_out(&Source::Description, &mut random)
                .map_err(|reason| {
                    Failure::Usage(format!(
                        "{name}: no messages can be made from its description: {}; give --message",
                        Printable(reason)
                    ))
                })?;
        }
        maker.count = count.unwrap_or(maker.sources.len() as u64);
        Ok(Self(Arc::new(maker)))
    }

    /// Returns the number of messages that a call sends.
    pub(in crate::bench) fn count(&self) -> u64 {
        self.0.count
    }

    /// Returns the messages of the next call.
    pub(in crate::bench) fn next(&self, random: &mut Rng) -> Sending {
        Sending {
            maker: Arc::clone(&self.0),
            random: random.fork(),
            sent: Arc::default(),
        }
    }
}

/// Returns the given messages, each with the place where it is written.
async fn lines(given: &[String]) -> Outcome<Vec<(String, String)>> {
    let mut all = Vec::new();
    for text in given {
        let file = match text.strip_prefix('@') {
            Some(file) => file,
            None if text == "-" => text,
            None => {
                all.push(("--message".to_owned(), text.clone()));
                continue;
            }
        };
        let content = text_in(Path::new(file)).await?;
        let numbered = (1_u64..).zip(content.lines());
        let before = all.len();
        all.extend(
            numbered
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(number, line)| (format!("{file}, line {number}"), line.to_owned())),
        );
        if all.len() == before {
            let text = format!("--message {text}: there is no message in it");
            return Err(Failure::Usage(text));
        }
    }
    Ok(all)
}

impl Maker {
    fn source(&self, text: &str, random: &mut Rng) -> Result<Source, String> {
        let template = Template::parse(text, Around::Json)?;
        if let Some(text) = template.fixed() {
            return Ok(Source::Fixed(self.checked(text)?));
        }
        let source = Source::Template(template);
        self.try_out(&source, random)?;
        Ok(source)
    }

    fn try_out(&self, source: &Source, random: &mut Rng) -> Result<(), String> {
        (0..TRIALS).try_for_each(|_| self.make(source, random).map(drop))
    }

    fn make(&self, source: &Source, random: &mut Rng) -> Result<JsonText, String> {
        match source {
            Source::Fixed(text) => Ok(text.clone()),
            Source::Template(template) => self.checked(&template.fill(random)),
            Source::Description => {
                let value = sample::value(&self.ty, &self.service.types, random);
                self.checked(&value.to_string())
            }
        }
    }

    fn checked(&self, text: &str) -> Result<JsonText, String> {
        message(text.as_bytes(), &self.service, &self.ty)
    }
}

/// The messages of one call, each of which is made when the connection takes it.
#[derive(Debug)]
pub(in crate::bench) struct Sending {
    maker: Arc<Maker>,
    random: Rng,
    sent: Arc<AtomicU64>,
}

impl Sending {
    /// Returns the counter of the messages that were taken so far.
    pub(in crate::bench) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }
}

impl Stream for Sending {
    type Item = Result<JsonText, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let sent = this.sent.load(Ordering::Relaxed);
        if sent >= this.maker.count {
            return Poll::Ready(None);
        }
        let sources = &this.maker.sources;
        let source = &sources[(sent % sources.len() as u64) as usize];
        let made = this.maker.make(source, &mut this.random);
        this.sent.store(sent + 1, Ordering::Relaxed);
        Poll::Ready(Some(made.map_err(Status::invalid_argument)))
    }
}
