//! Links in what is passed back: those to the server behind lead through this one.
//!
//! Reads just enough of HTML to find tags and their attributes; text, comments and
//! scripts go through as they are, and what is not understood is not changed.

use std::borrow::Cow;

/// Bytes of one tag, at most; a longer one goes through as it is.
const MAX_TAG_BYTES: usize = 64 * 1024;

/// Attributes that hold a link, by tag (HTML 4, appendix on attributes, and HTML 5).
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content holds no tags.
const RAW_TEXT: [&str; 8] = [
    "iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp",
];

/// How links are to be changed.
#[derive(Clone)]
pub(crate) struct Links {
    /// The path of this server under which the other's root is found.
    pub(crate) prefix: String,
    /// The path that is asked for behind it.
    pub(crate) path: String,
    /// `host:port` of the server behind.
    pub(crate) upstream: String,
    /// What the client calls this server.
    pub(crate) asked: String,
}

impl Links {
    /// The whole path as the client sees it.
    pub(crate) fn forwarded_uri(&self) -> String {
        join(&self.prefix, &self.path)
    }

    /// One link.
    pub(crate) fn rewrite(&self, link: &str) -> String {
        let (authority, rest) = match split_authority(link) {
            Some((authority, rest)) => (Some(authority), rest),
            None => (None, link),
        };
        let foreign = authority.is_some_and(|host| host != self.upstream && host != self.asked);
        if foreign || !rest.starts_with('/') {
            return link.to_owned();
        }
        let kept = match authority {
            Some(host) if host == self.asked => &link[..link.len() - rest.len()],
            _ => "",
        };
        if rest.starts_with(&self.prefix) {
            return format!("{kept}{rest}");
        }
        format!("{kept}{}", join(&self.prefix, rest))
    }
}

fn join(prefix: &str, path: &str) -> String {
    format!("{}{path}", prefix.trim_end_matches('/'))
}

/// The authority of an absolute link, and what follows it.
fn split_authority(link: &str) -> Option<(&str, &str)> {
    let after = match link.split_once("//") {
        Some(("", after)) => after,
        Some((scheme, after)) => {
            let name = scheme.strip_suffix(':')?;
            let sound = name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            if name.is_empty() || !sound {
                return None;
            }
            after
        }
        None => return None,
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    Some(after.split_at(end))
}

/// Changes the links of a page that comes in pieces.
pub(super) struct PageRewriter {
    links: Links,
    pending: Vec<u8>,
    /// The element whose end ends a text without tags.
    raw: Option<&'static str>,
}

impl PageRewriter {
    pub(super) fn new(links: Links) -> Self {
        Self {
            links,
            pending: Vec::new(),
            raw: None,
        }
    }

    /// What can be passed on after this piece.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(piece);
        let pending = std::mem::take(&mut self.pending);
        let mut output = Vec::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        loop {
            let Some(start) = self.next_tag(rest) else {
                // The last bytes may be the beginning of what is looked for.
                let kept = self.raw.map_or(0, |raw| raw.len() + 1).min(rest.len());
                let (sure, kept) = rest.split_at(rest.len() - kept);
                output.extend_from_slice(sure);
                self.pending = kept.to_vec();
                return output;
            };
            output.extend_from_slice(&rest[..start]);
            rest = &rest[start..];
            match tag_length(rest) {
                Some(length) => {
                    let (tag, tail) = rest.split_at(length);
                    output.extend_from_slice(&self.tag(tag));
                    rest = tail;
                }
                None if rest.len() > MAX_TAG_BYTES => {
                    output.extend_from_slice(rest);
                    return output;
                }
                None => {
                    self.pending = rest.to_vec();
                    return output;
                }
            }
        }
    }

    /// Where the next tag or comment begins; in a text without tags, where it ends.
    fn next_tag(&self, text: &[u8]) -> Option<usize> {
        let Some(raw) = self.raw else {
            return text.iter().position(|byte| *byte == b'<');
        };
        text.windows(raw.len() + 2).position(|part| {
            part.starts_with(b"</") && part[2..].eq_ignore_ascii_case(raw.as_bytes())
        })
    }

    /// What is left at the page's end.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    fn tag<'a>(&mut self, tag: &'a [u8]) -> Cow<'a, [u8]> {
        let Ok(text) = std::str::from_utf8(tag) else {
            return tag.into();
        };
        let inner = text.trim_start_matches('<');
        let (closing, inner) = match inner.strip_prefix('/') {
            Some(inner) => (true, inner),
            None => (false, inner),
        };
        let end = inner
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(inner.len());
        let name = inner[..end].to_ascii_lowercase();
        if closing || name.is_empty() {
            self.raw = None;
            return tag.into();
        }
        self.raw = RAW_TEXT
            .into_iter()
            .find(|raw| *raw == name && !text.ends_with("/>"));
        let Some((_, attributes)) = LINKS.iter().find(|(tag, _)| *tag == name) else {
            return tag.into();
        };
        let from = text.len() - inner.len() + end;
        let mut output = text[..from].to_owned();
        self.attributes(&text[from..], attributes, &mut output);
        output.into_bytes().into()
    }

    /// Copies a tag's attributes, with those that hold links changed.
    fn attributes(&self, mut rest: &str, wanted: &[&str], output: &mut String) {
        while let Some(equals) = rest.find('=') {
            let before = &rest[..equals];
            let name = before
                .trim_end()
                .rsplit(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '\'')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            output.push_str(before);
            output.push('=');
            rest = &rest[equals + 1..];
            let gap = rest.len() - rest.trim_start().len();
            output.push_str(&rest[..gap]);
            rest = &rest[gap..];
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
            let start = usize::from(quote.is_some());
            let end = match quote {
                Some(quote) => rest[1..].find(quote).map_or(rest.len(), |end| end + 1),
                None => rest
                    .find(|c: char| c.is_whitespace() || c == '>')
                    .unwrap_or(rest.len()),
            };
            output.push_str(&rest[..start]);
            let value = &rest[start..end];
            if wanted.contains(&name.as_str()) {
                output.push_str(&self.links.rewrite(value));
            } else {
                output.push_str(value);
            }
            rest = &rest[end..];
            if let Some(quote) = quote
                && rest.starts_with(quote)
            {
                output.push(quote);
                rest = &rest[1..];
            }
        }
        output.push_str(rest);
    }
}

/// Bytes of the tag or comment at the start, once it is complete.
fn tag_length(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"<!--") {
        let end = text.windows(3).skip(4).position(|part| part == b"-->")?;
        return Some(end + 4 + 3);
    }
    // A `<` in a text is no tag.
    if let Some(second) = text.get(1)
        && !second.is_ascii_alphabetic()
        && !matches!(second, b'/' | b'!' | b'?')
    {
        return Some(1);
    }
    let mut quote = None;
    for (index, byte) in text.iter().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return Some(index + 1),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/a/pods/p/proxy".into(),
            path: "/page".into(),
            upstream: "10.0.0.1:80".into(),
            asked: "localhost:8001".into(),
        }
    }

    #[test]
    fn links_to_the_server_behind_lead_through_the_proxy() {
        let links = links();
        let through = |path: &str| format!("{}{path}", links.prefix);
        assert_eq!(links.rewrite("/rewriteme"), through("/rewriteme"));
        assert_eq!(links.rewrite("http://10.0.0.1:80/a?b#c"), through("/a?b#c"));
        assert_eq!(links.rewrite(&through("/there")), through("/there"));
        let own = format!("http://localhost:8001{}", through("/x"));
        assert_eq!(links.rewrite("http://localhost:8001/x"), own);
        for kept in [
            "relative",
            "#part",
            "mailto:a@b",
            "https://example.com/x",
            "//example.com/x",
        ] {
            assert_eq!(links.rewrite(kept), kept);
        }
        assert_eq!(links.forwarded_uri(), through("/page"));
    }

    #[test]
    fn a_page_is_changed_in_its_links_alone_however_it_is_cut() {
        let page = "<html><!-- <a href=\"/c\"> --><A HREF='/x?a=b' title=\"/t\">1 < 2</a>\
                    <script>if (a<b) { s = '<a href=\"/s\">' }</script><img alt=a=b src=/i.png>\
                    <br/></html> <a href=\"/unfinished";
        let p = links().prefix;
        let expected = format!(
            "<html><!-- <a href=\"/c\"> --><A HREF='{p}/x?a=b' title=\"/t\">1 < 2</a>\
             <script>if (a<b) {{ s = '<a href=\"/s\">' }}</script><img alt=a=b src={p}/i.png>\
             <br/></html> <a href=\"/unfinished"
        );
        for piece in [1, 2, 5, 17, 1_000] {
            let mut rewriter = PageRewriter::new(links());
            let mut output = Vec::new();
            for chunk in page.as_bytes().chunks(piece) {
                output.extend(rewriter.feed(chunk));
            }
            output.extend(rewriter.finish());
            assert_eq!(String::from_utf8(output).unwrap(), expected, "{piece}");
        }
    }
}
