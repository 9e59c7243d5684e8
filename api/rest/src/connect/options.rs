//! The query of a connecting request: `PodLogOptions`, `PodExecOptions`,
//! `PodAttachOptions` and `PodPortForwardOptions` of core v1, and the path of a proxy's.

use http::Uri;
use nautilus_machinery::status::{ApiError, Cause};
use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

use super::Connect;
use super::proxy::clean;
use crate::options::integer;
use crate::route::{query_pairs, segments, truth};

/// Values of one parameter, at most (a command's words, ports).
const MAX_VALUES: usize = 4_096;

/// A query's parameters, as the reference reads them into options.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &Uri) -> Self {
        Self(query_pairs(uri))
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> String {
        self.first(name).unwrap_or_default().to_owned()
    }

    fn flag(&self, name: &str) -> bool {
        self.first(name).is_some_and(truth)
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .take(MAX_VALUES)
            .collect()
    }

    fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.first(name).map(integer).transpose()
    }
}

/// What is wanted of a container's log.
#[derive(Debug, Default, PartialEq)]
pub(super) struct LogOptions {
    pub(super) container: String,
    pub(super) follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    /// RFC 3339, to the second.
    since_time: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
    pub(super) insecure_skip_tls_verify_backend: bool,
}

impl LogOptions {
    /// Reads them for the log of a container of `pod`.
    pub(super) fn parse(uri: &Uri, pod: &str) -> Result<Self, ApiError> {
        let query = Parameters::of(uri);
        let since_time = match query.first("sinceTime").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(whole_seconds(text)?),
        };
        let options = Self {
            container: query.text("container"),
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds: query.number("sinceSeconds")?,
            since_time,
            tail_lines: query.number("tailLines")?,
            limit_bytes: query.number("limitBytes")?,
            stream: query.first("stream").map(str::to_owned),
            insecure_skip_tls_verify_backend: query.flag("insecureSkipTLSVerifyBackend"),
        };
        let causes = options.check();
        if causes.is_empty() {
            Ok(options)
        } else {
            let kind = "PodLogOptions";
            Err(ApiError::invalid_kind(kind, "", kind, pod, causes))
        }
    }

    fn check(&self) -> Vec<Cause> {
        let mut errors = Errors::new();
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            let detail = "must be greater than or equal to 0";
            errors.invalid("tailLines", &json!(lines), detail);
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.invalid("limitBytes", &json!(bytes), "must be greater than 0");
        }
        match (self.since_seconds, &self.since_time) {
            (Some(_), Some(_)) => errors.forbidden(
                "",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            (Some(seconds), None) if seconds < 1 => {
                errors.invalid("sinceSeconds", &json!(seconds), "must be greater than 0");
            }
            _ => {}
        }
        // The release served has separate streams switched off (PodLogsQuerySplitStreams).
        if self.stream.is_some() {
            errors.forbidden("stream", "may not be specified");
        }
        errors.into_causes()
    }

    /// The query of the kubelet, as the reference orders it.
    pub(super) fn kubelet_query(&self) -> String {
        let mut pairs = Vec::new();
        let mut flag = |set: bool, name: &'static str| {
            if set {
                pairs.push((name, "true".to_owned()));
            }
        };
        flag(self.follow, "follow");
        flag(self.previous, "previous");
        flag(self.timestamps, "timestamps");
        let numbers = [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                pairs.push((name, number.to_string()));
            }
        }
        if let Some(time) = &self.since_time {
            pairs.push(("sinceTime", time.clone()));
        }
        encode(pairs)
    }
}

fn whole_seconds(text: &str) -> Result<String, ApiError> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        let text = nautilus_machinery::status::quote(text);
        ApiError::bad_request(format!("parsing time {text}: not a time of RFC 3339"))
    })?;
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// What is wanted of a command, or of a container's own process.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CommandOptions {
    pub(super) container: String,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
    command: Vec<String>,
}

impl CommandOptions {
    /// Of `PodExecOptions` or `PodAttachOptions`.
    pub(super) fn of(options: &Value) -> Self {
        let flag = |name: &str| options[name] == true;
        let command = options["command"].as_array().into_iter().flatten();
        Self {
            container: options["container"].as_str().unwrap_or_default().to_owned(),
            stdin: flag("stdin"),
            stdout: flag("stdout"),
            stderr: flag("stderr"),
            tty: flag("tty"),
            command: command
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect(),
        }
    }

    /// The query of the kubelet: `with_command` for exec.
    pub(super) fn kubelet_query(&self, with_command: bool) -> String {
        let flags = [
            ("input", self.stdin),
            ("output", self.stdout),
            ("error", self.stderr),
            ("tty", self.tty),
        ];
        let mut pairs: Vec<(&str, String)> = flags
            .into_iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| (name, "1".to_owned()))
            .collect();
        if with_command {
            pairs.extend(self.command.iter().map(|word| ("command", word.clone())));
        }
        encode(pairs)
    }
}

/// What is asked for, as admission sees it, without kind and version. `proxied` is the path
/// behind a proxy.
pub(super) fn connecting(connect: Connect, uri: &Uri, proxied: &str) -> Result<Value, ApiError> {
    let query = Parameters::of(uri);
    Ok(match connect {
        Connect::PortForward => {
            let ports = query.all("ports");
            let numbers = ports.iter().flat_map(|text| text.split(',')).map(integer);
            json!({ "ports": numbers.collect::<Result<Vec<i64>, _>>()? })
        }
        Connect::Proxy => json!({ "path": shown(proxied) }),
        _ => json!({
            "stdin": query.flag("stdin"),
            "stdout": query.flag("stdout"),
            "stderr": query.flag("stderr"),
            "tty": query.flag("tty"),
            "container": query.text("container"),
            "command": query.all("command"),
        }),
    })
}

/// A path in words: what is asked of a server, however it is written.
pub(super) fn shown(path: &str) -> String {
    let path = clean(path);
    let words = segments(&path).map(|segments| segments.join("/"));
    words.unwrap_or_else(|| path.trim_matches('/').to_owned())
}

/// The kubelet's query for the ports of `PodPortForwardOptions`.
pub(super) fn port_forward_query(options: &Value) -> String {
    let ports = options["ports"].as_array().into_iter().flatten();
    let numbers: Vec<String> = ports.map(Value::to_string).collect();
    if numbers.is_empty() {
        return String::new();
    }
    encode(vec![("port", numbers.join(","))])
}

fn encode(pairs: Vec<(&str, String)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&query_escape(&value));
    }
    text
}

/// Percent-encodes what has a meaning in a query.
fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/x?{query}").parse().unwrap()
    }

    #[test]
    fn a_logs_options_reach_the_kubelet() {
        let query = "container=c&follow=true&previous=0&timestamps&tailLines=5&limitBytes=10&\
                     sinceTime=2026-01-02T03:04:05.6%2B01:00";
        let options = LogOptions::parse(&uri(query), "p").unwrap();
        assert_eq!(options.container, "c");
        assert_eq!(
            options.kubelet_query(),
            "?follow=true&timestamps=true&tailLines=5&limitBytes=10&\
             sinceTime=2026-01-02T02%3A04%3A05Z"
        );
        assert_eq!(
            LogOptions::parse(&uri(""), "p").unwrap().kubelet_query(),
            ""
        );
    }

    #[test]
    fn senseless_options_are_named() {
        let causes = |query: &str| LogOptions::parse(&uri(query), "p").unwrap_err();
        let error = causes("tailLines=-1&limitBytes=0&sinceSeconds=0&stream=Stdout");
        assert_eq!(error.code(), 422);
        let fields: Vec<&str> = error.causes().iter().map(|c| c.field.as_str()).collect();
        assert_eq!(
            fields,
            ["tailLines", "limitBytes", "sinceSeconds", "stream"]
        );
        let both = causes("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z");
        assert!(both.message().contains("at most one of `sinceTime`"));
        assert_eq!(causes("tailLines=x").code(), 400);
        assert_eq!(causes("sinceTime=yesterday").code(), 400);
    }

    #[test]
    fn a_commands_words_stay_words() {
        let asked = uri("command=sh&command=-c&command=a%20%26b&stdout=1");
        let options = CommandOptions::of(&connecting(Connect::Exec, &asked, "").unwrap());
        assert_eq!(
            options.kubelet_query(true),
            "?output=1&command=sh&command=-c&command=a%20%26b"
        );
        assert_eq!(options.kubelet_query(false), "?output=1");
    }

    #[test]
    fn ports_are_numbers() {
        let query = |query: &str| {
            let options = connecting(Connect::PortForward, &uri(query), "")?;
            Ok::<_, ApiError>(port_forward_query(&options))
        };
        assert_eq!(query("").unwrap(), "");
        assert_eq!(query("ports=80&ports=81").unwrap(), "?port=80%2C81");
        assert!(query("ports=http").is_err());
    }

    #[test]
    fn a_path_is_shown_as_what_it_leads_to() {
        for (written, path) in [
            ("", ""),
            ("/", ""),
            ("/a//b/", "a/b"),
            ("/x/../%61dmin", "admin"),
            ("/a%2Fb", "a%2Fb"),
        ] {
            assert_eq!(shown(written), path, "{written}");
        }
    }
}
