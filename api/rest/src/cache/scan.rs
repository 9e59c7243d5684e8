//! What an index needs of an object, read from its JSON without making a tree of it.
//!
//! The text is what this API stored: well-formed. A text that is not is reported, never
//! read beyond its end; what is not looked for is passed over in one loop.

use nautilus_machinery::resource::Selectable;

/// What is looked for in the objects of a kind.
pub(super) struct Shape {
    root: Node,
    /// Per field of the kind, in its order, what an absent one is taken for.
    pub(super) defaults: Vec<String>,
}

#[derive(Default)]
struct Node {
    children: Vec<(String, Node)>,
    /// The fields whose text stands here, each with the rank of this place among its
    /// alternatives.
    fields: Vec<(usize, usize)>,
    part: Part,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Plain,
    ApiVersion,
    Metadata,
    Labels,
    ResourceVersion,
}

/// What was found.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the metadata ends: its closing brace.
    pub(super) metadata_end: Option<usize>,
    /// Whether anything stands in the metadata.
    pub(super) metadata_filled: bool,
    /// Whether it has a resourceVersion.
    pub(super) versioned: bool,
    pub(super) api_version: String,
    pub(super) labels: Vec<(String, String)>,
    /// Per field of the kind, the rank of the place and its text.
    fields: Vec<Option<(usize, String)>>,
}

impl Found {
    /// The text of each field, empty ones as their defaults say.
    pub(super) fn fields<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = &'a str> {
        let found = self.fields.iter().zip(&shape.defaults);
        found.map(|(found, default)| found.as_ref().map_or(default.as_str(), |(_, text)| text))
    }
}

/// The text is no JSON object, or ends in the middle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl Shape {
    /// For a kind with these fields.
    pub(super) fn new(selectable: &[Selectable]) -> Self {
        let mut root = Node::default();
        root.child("apiVersion").part = Part::ApiVersion;
        let metadata = root.child("metadata");
        metadata.part = Part::Metadata;
        metadata.child("labels").part = Part::Labels;
        metadata.child("resourceVersion").part = Part::ResourceVersion;
        for (field, selectable) in selectable.iter().enumerate() {
            for (rank, path) in selectable.path.split('|').enumerate() {
                let place = path.split('.').fold(&mut root, Node::child);
                place.fields.push((field, rank));
            }
        }
        let defaults = selectable.iter().map(|field| field.default.clone());
        Self {
            root,
            defaults: defaults.collect(),
        }
    }

    /// Reads one object.
    pub(super) fn scan(&self, text: &[u8]) -> Result<Found, Damaged> {
        let mut found = Found::default();
        found.fields.resize_with(self.defaults.len(), || None);
        let mut scanner = Scanner { text, at: 0 };
        scanner.object(&self.root, &mut found)?;
        Ok(found)
    }
}

impl Node {
    fn child(&mut self, name: &str) -> &mut Self {
        let at = match self.children.iter().position(|(own, _)| own == name) {
            Some(at) => at,
            None => {
                self.children.push((name.to_owned(), Self::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[at].1
    }

    fn find(&self, name: &[u8]) -> Option<&Self> {
        let found = self.children.iter().find(|(own, _)| own.as_bytes() == name);
        found.map(|(_, node)| node)
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The next byte that is no white space, not taken.
    fn peek(&mut self) -> Result<u8, Damaged> {
        while let Some(byte) = self.text.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(Damaged)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Damaged> {
        if self.peek()? != byte {
            return Err(Damaged);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes an object whose members mean what `node` says. As deep as paths are.
    fn object(&mut self, node: &Node, found: &mut Found) -> Result<(), Damaged> {
        self.members(
            |scanner, name, found: &mut Found| {
                if node.part == Part::Metadata {
                    found.metadata_filled = true;
                }
                match node.find(name) {
                    Some(child) => scanner.visit(child, found),
                    None => scanner.skip(),
                }
            },
            found,
        )
    }

    fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a [u8], &mut Found) -> Result<(), Damaged>,
        found: &mut Found,
    ) -> Result<(), Damaged> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            self.peek()?;
            member(self, name, found)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Damaged),
            }
            self.peek()?;
        }
    }

    fn visit(&mut self, node: &Node, found: &mut Found) -> Result<(), Damaged> {
        let begin = self.at;
        match (self.peek()?, node.part) {
            (b'{', Part::Labels) => return self.labels(found),
            (b'{', _) => self.object(node, found)?,
            _ => self.skip()?,
        }
        match node.part {
            Part::Metadata => found.metadata_end = Some(self.at - 1),
            Part::ResourceVersion => found.versioned = true,
            Part::ApiVersion => {
                found.api_version = scalar(&self.text[begin..self.at]).unwrap_or_default();
            }
            Part::Plain | Part::Labels => {}
        }
        if node.fields.is_empty() {
            return Ok(());
        }
        let Some(text) = scalar(&self.text[begin..self.at]).filter(|text| !text.is_empty()) else {
            return Ok(());
        };
        for (field, rank) in &node.fields {
            let slot = &mut found.fields[*field];
            if slot.as_ref().is_none_or(|(better, _)| better > rank) {
                *slot = Some((*rank, text.clone()));
            }
        }
        Ok(())
    }

    fn labels(&mut self, found: &mut Found) -> Result<(), Damaged> {
        self.members(
            |scanner, name, found: &mut Found| {
                let begin = scanner.at;
                scanner.skip()?;
                let value = &scanner.text[begin..scanner.at];
                if value.first() == Some(&b'"') {
                    let name = unescaped(name).ok_or(Damaged)?;
                    found.labels.push((name, scalar(value).ok_or(Damaged)?));
                }
                Ok(())
            },
            found,
        )
    }

    /// Takes a string; gives what stands between its quotes.
    fn string(&mut self) -> Result<&'a [u8], Damaged> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(Damaged);
        }
        self.at += 1;
        let begin = self.at;
        loop {
            let rest = self.text.get(self.at..).ok_or(Damaged)?;
            let special = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let special = special.ok_or(Damaged)?;
            self.at += special + 1;
            if rest[special] == b'"' {
                return Ok(&self.text[begin..self.at - 1]);
            }
            self.at += 1;
        }
    }

    /// Takes a value of any kind.
    fn skip(&mut self) -> Result<(), Damaged> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(Damaged)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b',' | b':' => return Err(Damaged),
                _ => {
                    let rest = &self.text[self.at..];
                    let end = |byte: &u8| {
                        matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace()
                    };
                    self.at += rest.iter().position(end).unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// The text of a string, truth value or number; `None` for anything else.
fn scalar(value: &[u8]) -> Option<String> {
    match value {
        [b'"', inner @ .., b'"'] => unescaped(inner),
        [b'{' | b'[', ..] | b"null" => None,
        other => std::str::from_utf8(other).ok().map(str::to_owned),
    }
}

fn unescaped(inner: &[u8]) -> Option<String> {
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).ok().map(str::to_owned);
    }
    let quoted = [b"\"", inner, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests {
    use nautilus_machinery::resource;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pods() -> Shape {
        Shape::new(&resource::find("", "v1", "pods").expect("served").selectable)
    }

    fn text_of(found: &Found, shape: &Shape, label: &str) -> String {
        let pods = resource::find("", "v1", "pods").expect("served");
        let at = pods
            .selectable
            .iter()
            .position(|field| field.label == label);
        let fields: Vec<&str> = found.fields(shape).collect();
        fields[at.expect("selectable")].to_owned()
    }

    #[test]
    fn labels_fields_and_the_end_of_the_metadata_are_found() {
        let shape = pods();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"app": "w\"eb", "x": ""}, "annotations": {"{": "}"}},
            "spec": {"nodeName": "n\\1", "containers": [{"name": "c", "args": ["[", "}"]}], "hostNetwork": true},
            "status": {"phase": "Running", "podIP": null},
        });
        let text = pod.to_string();
        let found = shape.scan(text.as_bytes()).expect("well-formed");
        assert_eq!(found.api_version, "v1");
        assert!(!found.versioned && found.metadata_filled);
        let labels = [("app", "w\"eb"), ("x", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(found.labels, labels);
        assert_eq!(text_of(&found, &shape, "spec.nodeName"), "n\\1");
        assert_eq!(text_of(&found, &shape, "spec.hostNetwork"), "true");
        assert_eq!(text_of(&found, &shape, "status.podIP"), "");
        let end = found.metadata_end.expect("it has metadata");
        assert!(text[end..].starts_with("},\"spec\""));
    }

    #[test]
    fn every_prefix_of_an_object_is_damaged() {
        let shape = pods();
        let text =
            json!({"metadata": {"labels": {"a": "b\\"}}, "spec": [1, {"x": "y"}]}).to_string();
        for length in 0..text.len() {
            assert_eq!(
                shape.scan(&text.as_bytes()[..length]),
                Err(Damaged),
                "{length}"
            );
        }
        shape.scan(text.as_bytes()).expect("whole");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,8}|[\"\\\\{}\\[\\],:]{1,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,4}|metadata|labels|spec", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_scanner_sees_what_a_parser_sees(
            labels in proptest::collection::btree_map("\\PC{0,5}", "\\PC{0,5}|[\"\\\\]{1,3}", 0..4),
            node in "\\PC{0,6}|[\"\\\\]{1,3}",
            junk in any_json(),
            pretty in any::<bool>(),
        ) {
            let shape = pods();
            let object = json!({"junk": junk, "spec": {"a": junk, "nodeName": node, "b": junk},
                "metadata": {"name": "x", "annotations": junk, "labels": labels}, "z": junk});
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let text = text.expect("JSON");
            let found = shape.scan(text.as_bytes()).expect("well-formed");
            prop_assert_eq!(found.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(), labels);
            prop_assert_eq!(text_of(&found, &shape, "spec.nodeName"), node);
            let end = found.metadata_end.expect("metadata");
            let spliced = format!("{},\"resourceVersion\":\"7\"{}", text[..end].trim_end(), &text[end..]);
            let spliced: Value = serde_json::from_str(&spliced).expect("still JSON");
            prop_assert_eq!(&spliced["metadata"]["resourceVersion"], "7");
        }

        #[test]
        fn any_bytes_are_read_or_damaged(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = pods().scan(&bytes);
        }
    }
}
