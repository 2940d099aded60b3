//! Compares a service with that of a server.

use std::collections::HashMap;

use iip_schema::compat::{Encoding, Report, Verdict, compare_methods};
use iip_schema::{Description, Method, Types};

use crate::codec::CodecId;
use crate::schema::SchemaCheck;
use crate::status::Status;

/// The result of the comparison for one service.
pub(crate) enum Finding {
    /// The methods are the same, or nothing can be found out: calls need no further look.
    Settled,
    Different(Different),
}

/// The methods that differ, by their paths.
pub(crate) struct Different(HashMap<String, MethodReports>);

/// A report for each codec of this build.
struct MethodReports(Vec<(CodecId, Report)>);

impl MethodReports {
    fn new(client: (&Method, &Types), server: (&Method, &Types)) -> Self {
        let supported = CodecId::supported();
        let compared = supported.filter_map(|codec| {
            let report = compare_methods(client, server, encoding(codec)?);
            Some((codec, report))
        });
        Self(compared.collect())
    }

    fn report(&self, codec: CodecId) -> Option<&Report> {
        let (_, report) = self.0.iter().find(|(compared, _)| *compared == codec)?;
        Some(report)
    }

    fn is_equal(&self) -> bool {
        let mut reports = self.0.iter();
        reports.all(|(_, report)| report.verdict() == Verdict::Equal)
    }
}

impl Different {
    /// The codec among `candidates` that carries the values best; the first of equal ones.
    ///
    /// # Errors
    ///
    /// Returns the worst difference if no codec carries them.
    pub(crate) fn codec(
        &self,
        path: &str,
        mut candidates: impl Iterator<Item = CodecId>,
    ) -> Result<CodecId, String> {
        let Some(first) = candidates.next() else {
            return Ok(CodecId::JSON);
        };
        let Some(reports) = self.0.get(path) else {
            return Ok(first);
        };
        let rank = |codec| reports.report(codec).map_or(Rank::Fits, Rank::of);
        let mut best = (rank(first), first);
        for codec in candidates {
            if rank(codec) < best.0 {
                best = (rank(codec), codec);
            }
        }
        match best {
            (Rank::Fails, codec) => Err(self.problem(path, codec)),
            (_, codec) => Ok(codec),
        }
    }

    /// Returns the reason why a method cannot be called. JSON, which has names, has fewer reasons
    /// than `codec`.
    fn problem(&self, path: &str, codec: CodecId) -> String {
        let reports = self.0.get(path);
        let report = [CodecId::JSON, codec]
            .into_iter()
            .find_map(|codec| reports?.report(codec));
        let worst = report.and_then(Report::worst);
        worst.map_or_else(String::new, ToString::to_string)
    }
}

/// The suitability of a codec for the values of a method. Later ranks are worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Fits,
    /// Some values may fail, or nothing is known.
    Risks,
    Fails,
}

impl Rank {
    fn of(report: &Report) -> Self {
        match report.verdict() {
            Verdict::Equal | Verdict::Compatible => Self::Fits,
            Verdict::Incompatible => Self::Fails,
            _ => Self::Risks,
        }
    }
}

/// Compares the two sides of a service, and logs what differs.
pub(crate) fn of(own: &Description, theirs: &Description, check: SchemaCheck) -> Finding {
    let mut different = HashMap::new();
    for method in &own.methods {
        // A method that the server lacks fails by itself.
        let Some(other) = theirs.method_at(&method.path) else {
            continue;
        };
        let reports = MethodReports::new((method, &own.types), (other, &theirs.types));
        if !reports.is_equal() {
            different.insert(method.path.clone(), reports);
        }
    }
    if different.is_empty() {
        return Finding::Settled;
    }
    let different = Different(different);
    log(&own.service, own, &different, check);
    Finding::Different(different)
}

/// Logs the differences, once for each build of a server.
fn log(service: &str, own: &Description, different: &Different, check: SchemaCheck) {
    let mut lines = String::new();
    for method in &own.methods {
        let Some(reports) = different.0.get(&method.path) else {
            continue;
        };
        let worst = reports.0.iter().filter_map(|(codec, report)| {
            let worst = report.worst()?;
            Some(format!("\n  in {codec}: {}: {worst}", report.verdict()))
        });
        lines.push_str(&format!("\n{}:", method.path));
        lines.extend(worst);
    }
    tracing::warn!(
        service,
        ?check,
        "the server has another build, whose methods differ:{lines}"
    );
}

/// Returns the finding for a service that the server does not describe.
pub(crate) fn unchecked(service: &str, refused: &Status) -> Finding {
    tracing::warn!(
        service,
        "the methods of the server could not be compared with those of this build: {refused}"
    );
    Finding::Settled
}

/// Returns the encoding of a codec; `None` if its values are not described.
fn encoding(codec: CodecId) -> Option<Encoding> {
    match codec {
        CodecId::BINCODE => Some(Encoding::Bincode),
        CodecId::POSTCARD => Some(Encoding::Postcard),
        CodecId::JSON => Some(Encoding::Json),
        CodecId::MSGPACK => Some(Encoding::MessagePack),
        _ => None,
    }
}
