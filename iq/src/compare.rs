//! Comparison of services, for `iq diff` and `iq schema check`.

use std::fmt;

use iip_core::Printable;
use iip_rpc::schema::compat::{Encoding, Report, Verdict, compare_methods};
use iip_rpc::schema::{Description, Method};
use serde::Serialize;

/// One difference.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The service.
    pub(crate) service: String,
    /// The direction of the comparison, such as `old client, new server`; may be empty.
    pub(crate) direction: &'static str,
    /// The codecs for which the difference matters.
    pub(crate) codecs: Vec<String>,
    /// The consequence of the difference for callers.
    #[serde(serialize_with = "as_text")]
    pub(crate) verdict: Verdict,
    /// The place, such as `place(order).items`.
    pub(crate) place: String,
    /// The difference in words.
    pub(crate) text: String,
}

fn as_text<S: serde::Serializer>(verdict: &Verdict, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(verdict)
}

/// Displays `incompatible: Orders, old client, new server (bincode, postcard): ..`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, direction) = (self.verdict, self.direction);
        write!(f, "{verdict}: {}", Printable(&self.service))?;
        if !direction.is_empty() {
            write!(f, ", {direction}")?;
        }
        if !self.codecs.is_empty() {
            write!(f, " ({})", self.codecs.join(", "))?;
        }
        write!(f, ": {}", Printable(&self.text))
    }
}

/// The sides of a comparison: a client of one description and a server of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides<'a> {
    pub(crate) client: &'a [Description],
    pub(crate) server: &'a [Description],
    /// The builds that are compared.
    pub(crate) direction: &'static str,
    /// Set if the server may lack methods of the client, because they are new.
    pub(crate) may_miss: bool,
}

/// Compares the methods of the client with those of the server.
///
/// With `any`, only the most compatible codecs of each method count: clients switch to one of them
/// automatically.
pub(crate) fn compare(sides: Sides<'_>, codecs: &[Encoding], any: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for client in sides.client {
        let mut servers = sides.server.iter();
        let Some(server) = servers.find(|server| server.service == client.service) else {
            findings.extend(missing(sides, client, "the service", ""));
            continue;
        };
        for method in &client.methods {
            match server.method_at(&method.path) {
                Some(other) => {
                    let pair = (client, method, server, other);
                    findings.extend(methods(sides, pair, codecs, any));
                }
                None => {
                    let what = format!("the method with the path `{}`", method.path);
                    findings.extend(missing(sides, client, &what, &method.name));
                }
            }
        }
    }
    findings
}

/// Returns the codec with this name in a description.
fn encoding(name: &str) -> Option<Encoding> {
    Some(match name {
        "bincode" => Encoding::Bincode,
        "postcard" => Encoding::Postcard,
        "msgpack" => Encoding::MessagePack,
        "json" => Encoding::Json,
        _ => return None,
    })
}

fn missing(sides: Sides<'_>, client: &Description, what: &str, place: &str) -> Option<Finding> {
    let finding = Finding {
        service: client.service.clone(),
        direction: sides.direction,
        codecs: Vec::new(),
        verdict: Verdict::Incompatible,
        place: place.to_owned(),
        text: format!("{what} is not there; calls fail with UNIMPLEMENTED"),
    };
    (!sides.may_miss).then_some(finding)
}

fn methods(
    sides: Sides<'_>,
    (client, method, server, other): (&Description, &Method, &Description, &Method),
    codecs: &[Encoding],
    any: bool,
) -> Vec<Finding> {
    // A method with its own codec uses no other.
    let own = method.codec.as_deref().and_then(encoding);
    let codecs = own.as_ref().map_or(codecs, std::slice::from_ref);
    let report = |&codec| {
        let (from, to) = ((method, &client.types), (other, &server.types));
        (codec, compare_methods(from, to, codec))
    };
    let mut reports: Vec<(Encoding, Report)> = codecs.iter().map(report).collect();
    if any {
        let best = reports.iter().map(|(_, report)| report.verdict()).min();
        reports.retain(|(_, report)| Some(report.verdict()) == best);
    }
    let mut findings: Vec<Finding> = Vec::new();
    for (codec, report) in reports {
        for difference in report.differences {
            let known = findings
                .iter_mut()
                .find(|known| known.text == difference.text && known.verdict == difference.verdict);
            if let Some(known) = known {
                known.codecs.push(codec.to_string());
                continue;
            }
            findings.push(Finding {
                service: client.service.clone(),
                direction: sides.direction,
                codecs: vec![codec.to_string()],
                verdict: difference.verdict,
                place: difference.place,
                text: difference.text,
            });
        }
        if report.omitted > 0 {
            findings.push(Finding {
                service: client.service.clone(),
                direction: sides.direction,
                codecs: vec![codec.to_string()],
                verdict: Verdict::Unknown,
                place: method.name.clone(),
                text: format!("{} further differences", report.omitted),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use iip_rpc::schema::{Argument, Type};

    use super::*;

    fn service(args: &[&str], codec: Option<&str>) -> [Description; 1] {
        let mut method = Method::new("set", "/sizes/set");
        let args = args.iter();
        method.args = args
            .map(|name| Argument::new(*name, Type::option(Type::U32)))
            .collect();
        method.codec = codec.map(str::to_owned);
        let mut service = Description::new("Sizes");
        service.methods.push(method);
        [service]
    }

    fn verdicts(codec: Option<&str>, codecs: &[Encoding], any: bool) -> Vec<Verdict> {
        let sides = Sides {
            client: &service(&["width"], codec),
            server: &service(&["width", "depth"], codec),
            direction: "",
            may_miss: false,
        };
        let findings = compare(sides, codecs, any);
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn the_best_codec_counts_unless_the_method_has_its_own() {
        let positional = [Encoding::Bincode];
        assert_eq!(verdicts(None, &positional, false), [Verdict::Incompatible]);
        assert_eq!(
            verdicts(Some("msgpack"), &positional, false),
            [Verdict::Compatible]
        );
        assert_eq!(verdicts(None, &Encoding::ALL, true), [Verdict::Compatible]);
        let own = verdicts(Some("postcard"), &Encoding::ALL, true);
        assert_eq!(own, [Verdict::Incompatible]);
    }
}
