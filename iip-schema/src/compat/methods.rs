//! The comparison of methods and services.

use std::collections::{HashMap, HashSet};

use super::Encoding;
use super::fields::places;
use super::judge::{Judge, MAX_STEPS, MethodName, Root, Sides};
use super::report::{Report, Rule, Verdict};
use crate::description::{Argument, Description, Format, Method, MethodKind};
use crate::text::{Name, Shown};
use crate::types::{Type, Types};

/// The most steps of a comparison of two services.
const MAX_SERVICE_STEPS: usize = 1_000_000;

const PROTOBUF: &str = "protobuf";

/// Compares all methods of a service.
pub(super) fn compare_services(
    client: &Description,
    server: &Description,
    encoding: Encoding,
    sides: Sides,
) -> Report {
    let mut report = Report::default();
    let mut left = MAX_SERVICE_STEPS;
    let at: HashMap<&str, &Method> = by(&server.methods, |method| &method.path);
    let named: HashMap<&str, &Method> = by(&server.methods, |method| &method.name);
    let mut matched: HashSet<&str> = HashSet::new();
    if client.service != server.service {
        let mut steps = 1;
        let mut judge = Judge::new(sides, &client.types, &server.types, encoding, &mut steps);
        let (old, new) = (
            Name(&client.service).to_string(),
            Name(&server.service).to_string(),
        );
        let text = format!(
            "service `{old}` in the {} is `{new}` in the {}",
            judge.writer(),
            judge.reader()
        );
        judge.differ(Rule::ServiceRenamed, Verdict::Compatible, &old, &new, &text);
        report.append(judge.finish());
    }
    for method in &client.methods {
        // The last step reports that there are no more.
        let mut steps = MAX_STEPS.min(left).max(1);
        let before = steps;
        let from = (method, &client.types);
        let Some(other) = at.get(&*method.path) else {
            let moved = named.get(&*method.name).copied();
            matched.extend(moved.map(|other| &*other.path));
            report.append(missing(
                &client.service,
                from,
                moved,
                (encoding, sides, &server.types),
            ));
            continue;
        };
        matched.insert(&other.path);
        let to = (*other, &server.types);
        report.append(compare(
            &client.service,
            from,
            to,
            encoding,
            sides,
            &mut steps,
        ));
        left = left.saturating_sub(before - steps);
    }
    for method in server
        .methods
        .iter()
        .filter(|method| !matched.contains(&*method.path))
    {
        let mut steps = 1;
        let mut judge = Judge::new(sides, &client.types, &server.types, encoding, &mut steps);
        judge.begin(
            Root::Method(MethodName(&server.service, &method.name)),
            true,
        );
        let text = format!("the method is only in the {}", judge.reader());
        let path = Name(&method.path).to_string();
        judge.differ(Rule::MethodAdded, Verdict::Compatible, "", &path, &text);
        report.append(judge.finish());
    }
    report
}

fn by<'a>(
    methods: &'a [Method],
    key: impl Fn(&'a Method) -> &'a String,
) -> HashMap<&'a str, &'a Method> {
    let mut by = HashMap::new();
    for method in methods {
        by.entry(&**key(method)).or_insert(method);
    }
    by
}

/// A method that the server does not have at its path.
fn missing(
    service: &str,
    (method, types): (&Method, &Types),
    moved: Option<&Method>,
    (encoding, sides, server): (Encoding, Sides, &Types),
) -> Report {
    let mut steps = 1;
    let mut judge = Judge::new(sides, types, server, encoding, &mut steps);
    judge.begin(Root::Method(MethodName(service, &method.name)), true);
    let old = Name(&method.path).to_string();
    let (client, server) = (judge.writer(), judge.reader());
    match moved {
        Some(moved) => {
            let new = Name(&moved.path).to_string();
            let text = format!(
                "the path is `{old}` in the {client} and `{new}` in the {server}; calls fail with \
                 UNIMPLEMENTED"
            );
            judge.differ(Rule::PathChanged, Verdict::Warn, &old, &new, &text);
        }
        None => {
            let text = format!("the method is only in the {client}; calls fail with UNIMPLEMENTED");
            judge.differ(Rule::MethodRemoved, Verdict::Warn, &old, "", &text);
        }
    }
    judge.finish()
}

/// Compares two methods with one path.
pub(super) fn compare(
    service: &str,
    (client, client_types): (&Method, &Types),
    (server, server_types): (&Method, &Types),
    encoding: Encoding,
    sides: Sides,
    steps: &mut usize,
) -> Report {
    let encoding = match client.format {
        Format::Json => Encoding::Json,
        _ => encoding,
    };
    let name = MethodName(service, &client.name);
    let mut judge = Judge::new(sides, client_types, server_types, encoding, steps);
    judge.begin(Root::Method(name), true);
    if !judge.step() {
        return judge.finish();
    }
    if client.kind != server.kind {
        judge.changed(
            Rule::KindChanged,
            Verdict::Incompatible,
            kind_in_words(client.kind),
            kind_in_words(server.kind),
        );
        return judge.finish();
    }
    if client.format != server.format {
        // A server takes plain JSON for enveloped methods too.
        let accepted = (client.format, server.format) == (Format::Json, Format::Envelope);
        let verdict = if accepted {
            Verdict::Compatible
        } else {
            Verdict::Incompatible
        };
        let (from, to) = (
            format_in_words(client.format),
            format_in_words(server.format),
        );
        judge.changed(Rule::FormatChanged, verdict, from, to);
    }
    if client.idempotent && !server.idempotent {
        let text = format!(
            "the method is idempotent in the {} only, which retries calls that may have run",
            judge.writer()
        );
        let rule = Rule::IdempotentRemoved;
        judge.differ(rule, Verdict::Warn, "idempotent", "", &text);
    }
    let of_protobuf = |method: &Method| method.codec.as_deref() == Some(PROTOBUF);
    match (of_protobuf(client), of_protobuf(server)) {
        (true, true) => {
            let text = "messages in protobuf are not compared";
            judge.differ(Rule::OpaqueType, Verdict::Unknown, PROTOBUF, PROTOBUF, text);
            return judge.finish();
        }
        (false, false) => {}
        (is, _) => {
            let (from, to) = if is { (PROTOBUF, "") } else { ("", PROTOBUF) };
            let side = if is { judge.writer() } else { judge.reader() };
            let text = format!("the method uses protobuf in the {side} only");
            judge.differ(Rule::CodecChanged, Verdict::Incompatible, from, to, &text);
            return judge.finish();
        }
    }
    if client.format == Format::Raw || server.format == Format::Raw {
        return judge.finish();
    }
    judge.arguments(name, &client.args, &server.args);
    judge.messages(name, client, server);
    judge.finish()
}

impl<'a> Judge<'a, '_> {
    fn changed(&mut self, rule: Rule, verdict: Verdict, client: &str, server: &str) {
        let (in_client, in_server) = (self.writer(), self.reader());
        let text = format!("{client} in the {in_client}, {server} in the {in_server}");
        self.differ(rule, verdict, client, server, &text);
    }

    fn messages(&mut self, name: MethodName<'a>, client: &'a Method, server: &'a Method) {
        if let (Some(from), Some(to)) = (&client.requests, &server.requests) {
            self.begin(Root::Requests(name), true);
            self.types(from, to);
        }
        self.begin(Root::Result(name), false);
        self.types(&server.result, &client.result);
        self.begin(Root::Error(name), false);
        self.errors(client.error.as_ref(), server.error.as_ref());
        self.begin(Root::StreamError(name), false);
        self.errors(client.stream_error.as_ref(), server.stream_error.as_ref());
    }

    fn errors(&mut self, client: Option<&'a Type>, server: Option<&'a Type>) {
        match (server, client) {
            (Some(from), Some(to)) => self.types(from, to),
            (Some(from), None) => {
                let text = format!(
                    "the method has an error type in the {} only; the {} cannot read it",
                    self.writer(),
                    self.reader()
                );
                let ty = Shown::new(from).to_string();
                self.differ(Rule::ErrorChanged, Verdict::Warn, &ty, "", &text);
            }
            (None, Some(to)) => {
                let text = format!("the method has an error type in the {} only", self.reader());
                let ty = Shown::new(to).to_string();
                self.differ(Rule::ErrorChanged, Verdict::Compatible, "", &ty, &text);
            }
            (None, None) => {}
        }
    }

    fn arguments(
        &mut self,
        method: MethodName<'a>,
        client: &'a [Argument],
        server: &'a [Argument],
    ) {
        let writes = places(client.iter().map(|argument| &*argument.name));
        let reads = places(server.iter().map(|argument| &*argument.name));
        let positional = self.encoding.is_positional();
        let same_number = client.len() == server.len();
        for (place, from) in client.iter().enumerate() {
            self.begin(Root::Argument(method, &from.name), true);
            let there = reads.get(&*from.name).copied();
            let here = server.get(place);
            // The argument at the same place has a name that the client does not have.
            let renamed = here.filter(|to| same_number && !writes.contains_key(&*to.name));
            match (there, renamed) {
                (Some(there), _) if there == place || !positional => {
                    if there != place {
                        self.argument_moved(from, place, there, Verdict::Compatible);
                    }
                    if let Some(to) = server.get(there) {
                        self.types(&from.ty, &to.ty);
                    }
                }
                (Some(there), _) => {
                    self.argument_moved(from, place, there, Verdict::Incompatible);
                }
                (None, Some(to)) => {
                    self.argument_renamed(from, to);
                    if positional {
                        self.types(&from.ty, &to.ty);
                    }
                }
                (None, None) => self.argument_removed(from),
            }
        }
        for (place, to) in server.iter().enumerate() {
            let known = writes.contains_key(&*to.name);
            let renamed = same_number
                && client
                    .get(place)
                    .is_some_and(|from| !reads.contains_key(&*from.name));
            if !known && !renamed {
                self.begin(Root::Argument(method, &to.name), true);
                self.argument_added(to);
            }
        }
    }

    fn argument_moved(&mut self, from: &Argument, place: usize, there: usize, verdict: Verdict) {
        let how = match verdict {
            Verdict::Compatible => String::new(),
            _ => format!("; {} writes arguments by place", self.encoding),
        };
        let text = format!(
            "`{}` is at place {place} in the {} and at place {there} in the {}{how}",
            Name(&from.name),
            self.writer(),
            self.reader(),
        );
        let (written, read) = (format!("place {place}"), format!("place {there}"));
        self.differ(Rule::ArgumentsReordered, verdict, &written, &read, &text);
    }

    fn argument_renamed(&mut self, from: &Argument, to: &Argument) {
        let (old, new) = (Name(&from.name).to_string(), Name(&to.name).to_string());
        let (verdict, how) = match self.encoding.is_positional() {
            true => (Verdict::Compatible, String::new()),
            false => (
                Verdict::Incompatible,
                format!("; {} writes arguments by name", self.encoding),
            ),
        };
        let (client, server) = (self.writer(), self.reader());
        let text = format!("`{old}` in the {client} is `{new}` in the {server}{how}");
        self.differ(Rule::ArgumentRenamed, verdict, &old, &new, &text);
    }

    fn argument_removed(&mut self, from: &Argument) {
        let text = format!(
            "the argument is only in the {}, and the {} rejects it",
            self.writer(),
            self.reader()
        );
        let ty = Shown::new(&from.ty).to_string();
        self.differ(Rule::ArgumentRemoved, Verdict::Incompatible, &ty, "", &text);
    }

    fn argument_added(&mut self, to: &Argument) {
        let (client, server) = (self.writer(), self.reader());
        let is_option = matches!(to.ty, Type::Option(_));
        let (verdict, how) = if self.encoding.is_positional() {
            let how = format!("; {} writes arguments by place", self.encoding);
            (Verdict::Incompatible, how)
        } else if !is_option {
            (Verdict::Incompatible, self.remedy("make it an `Option`"))
        } else {
            (
                Verdict::Compatible,
                format!("; it is `None` for the {client}"),
            )
        };
        let text = format!("the argument is only in the {server}{how}");
        let ty = Shown::new(&to.ty).to_string();
        self.differ(Rule::ArgumentAdded, verdict, "", &ty, &text);
    }
}

fn kind_in_words(kind: MethodKind) -> &'static str {
    match kind {
        MethodKind::Unary => "unary",
        MethodKind::OneWay => "one-way",
        MethodKind::ClientStream => "client streaming",
        MethodKind::ServerStream => "server streaming",
        MethodKind::Bidirectional => "bidirectional streaming",
        MethodKind::Subscription => "a subscription",
    }
}

fn format_in_words(format: Format) -> &'static str {
    match format {
        Format::Envelope => "enveloped messages",
        Format::Json => "plain JSON",
        Format::Raw => "raw messages",
    }
}
