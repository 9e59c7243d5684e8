//! Text into tokens. Literals are read here, escapes and all.
//!
//! Invariant: every token knows where it stands, in characters.

use crate::error::Mistake;
use crate::limits::MAX_ERRORS;

/// Words that name nothing.
pub(crate) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    /// A field's name in backquotes.
    Quoted(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    True,
    False,
    Null,
    In,
    Symbol(&'static str),
    End,
}

/// A token, where it stands, and how it was written.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) at: usize,
    pub(crate) text: String,
}

/// Longest first.
const SYMBOLS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!",
    "?", ":", "+", "*", "/", "%",
];

/// The tokens of a text, the last of which is the end, and what could not be read as one.
pub(crate) fn tokens(source: &[char]) -> (Vec<Placed>, Vec<Mistake>) {
    let mut lexer = Lexer { source, at: 0 };
    let mut all = Vec::new();
    let mut mistakes = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        let token = match lexer.next_token() {
            Ok(token) => token,
            Err(mistake) => {
                if mistakes.len() <= MAX_ERRORS {
                    mistakes.push(mistake);
                }
                continue;
            }
        };
        let text = source[start..lexer.at].iter().collect();
        let ended = token == Token::End;
        all.push(Placed {
            token,
            at: start,
            text,
        });
        if ended {
            return (all, mistakes);
        }
    }
}

struct Lexer<'a> {
    source: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.source.get(self.at + ahead).copied()
    }

    fn skip_blank(&mut self) {
        while let Some(next) = self.peek(0) {
            if next.is_ascii_whitespace() {
                self.at += 1;
            } else if next == '/' && self.peek(1) == Some('/') {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    /// What stands from here to `end` is no token; passes over it.
    fn unknown(&mut self, end: usize) -> Mistake {
        let end = end.min(self.source.len()).max(self.at + 1);
        let text: String = self.source[self.at..end].iter().collect();
        let mistake = Mistake {
            at: self.at,
            message: format!("Syntax error: token recognition error at: '{text}'"),
        };
        self.at = end;
        mistake
    }

    fn next_token(&mut self) -> Result<Token, Mistake> {
        let Some(first) = self.peek(0) else {
            return Ok(Token::End);
        };
        if let Some(prefix) = self.string_prefix() {
            return self.text(&prefix);
        }
        if first.is_ascii_digit()
            || (first == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit()))
        {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(self.word());
        }
        if first == '`' {
            return self.quoted();
        }
        for symbol in SYMBOLS {
            if symbol
                .chars()
                .enumerate()
                .all(|(i, c)| self.peek(i) == Some(c))
            {
                self.at += symbol.len();
                return Ok(Token::Symbol(symbol));
            }
        }
        // Half of a symbol: what should have been the other half goes with it.
        let length = if matches!(first, '&' | '|' | '=') {
            2
        } else {
            1
        };
        Err(self.unknown(self.at + length))
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while self
            .peek(0)
            .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            self.at += 1;
        }
        let word: String = self.source[start..self.at].iter().collect();
        match word.as_str() {
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            "in" => Token::In,
            _ => Token::Ident(word),
        }
    }

    fn quoted(&mut self) -> Result<Token, Mistake> {
        let start = self.at + 1;
        let mut end = start;
        while let Some(next) = self.source.get(end) {
            match next {
                '`' if end > start => {
                    self.at = end + 1;
                    return Ok(Token::Quoted(self.source[start..end].iter().collect()));
                }
                c if c.is_ascii_alphanumeric() || "_.-/ ".contains(*c) => end += 1,
                _ => break,
            }
        }
        Err(self.unknown(end))
    }

    fn number(&mut self) -> Result<Token, Mistake> {
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let digits = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                self.at += 1;
            }
            let text: String = self.source[digits..self.at].iter().collect();
            return self.integer(start, &text, 16);
        }
        let digits = |lexer: &mut Self| {
            let from = lexer.at;
            while lexer.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                lexer.at += 1;
            }
            lexer.at > from
        };
        digits(self);
        let mut floating = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            floating = true;
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let signed = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + signed).is_some_and(|c| c.is_ascii_digit()) {
                floating = true;
                self.at += 1 + signed;
                digits(self);
            }
        }
        let text: String = self.source[start..self.at].iter().collect();
        if floating {
            return text.parse().map(Token::Double).map_err(|_| Mistake {
                at: start,
                message: "invalid double literal".to_owned(),
            });
        }
        self.integer(start, &text, 10)
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Mistake> {
        let wrong = |what: &str| Mistake {
            at: start,
            message: format!("invalid {what} literal"),
        };
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return u64::from_str_radix(digits, radix)
                .map(Token::Uint)
                .map_err(|_| wrong("uint"));
        }
        let value = u64::from_str_radix(digits, radix).map_err(|_| wrong("int"))?;
        // The parser makes the least integer of a minus and this.
        if value == 1 << 63 {
            return Ok(Token::Int(i64::MIN));
        }
        i64::try_from(value)
            .map(Token::Int)
            .map_err(|_| wrong("int"))
    }

    fn string_prefix(&self) -> Option<Prefix> {
        let mut prefix = Prefix {
            length: 0,
            raw: false,
            bytes: false,
        };
        loop {
            match self.peek(prefix.length)? {
                '"' | '\'' => return Some(prefix),
                'r' | 'R' if !prefix.raw => prefix.raw = true,
                'b' | 'B' if !prefix.bytes && !prefix.raw => prefix.bytes = true,
                _ => return None,
            }
            prefix.length += 1;
        }
    }

    fn text(&mut self, prefix: &Prefix) -> Result<Token, Mistake> {
        let start = self.at;
        let quote = self.source[self.at + prefix.length];
        let opening = self.at + prefix.length;
        let long = self.source.get(opening + 1) == Some(&quote)
            && self.source.get(opening + 2) == Some(&quote);
        let ends: usize = if long { 3 } else { 1 };
        let mut at = opening + ends;
        let body = at;
        loop {
            let Some(next) = self.source.get(at) else {
                return Err(self.unknown(self.source.len()));
            };
            if *next == '\\' && !prefix.raw {
                at += 2;
                continue;
            }
            if (*next == '\n' || *next == '\r') && !long {
                return Err(self.unknown(at));
            }
            if (0..ends).all(|i| self.source.get(at + i) == Some(&quote)) {
                break;
            }
            at += 1;
        }
        let content = &self.source[body..at];
        self.at = at + ends;
        unescape(content, prefix).map_err(|message| Mistake { at: start, message })
    }
}

struct Prefix {
    length: usize,
    raw: bool,
    bytes: bool,
}

fn unescape(content: &[char], prefix: &Prefix) -> Result<Token, String> {
    let mut out: Vec<u8> = Vec::with_capacity(content.len());
    let put = |out: &mut Vec<u8>, character: char| {
        let mut buffer = [0; 4];
        out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
    };
    let mut at = 0;
    while let Some(next) = content.get(at) {
        at += 1;
        if *next != '\\' || prefix.raw {
            // Line ends inside long strings are read as one character.
            if *next == '\r' {
                if content.get(at) == Some(&'\n') {
                    at += 1;
                }
                put(&mut out, '\n');
                continue;
            }
            put(&mut out, *next);
            continue;
        }
        let Some(escape) = content.get(at) else {
            return Err("unable to unescape string, found '\\' as last character".to_owned());
        };
        at += 1;
        let plain = match escape {
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => Some(*escape),
            _ => None,
        };
        if let Some(plain) = plain {
            put(&mut out, plain);
            continue;
        }
        let (length, radix, from) = match escape {
            'x' | 'X' => (2, 16, at),
            'u' if !prefix.bytes => (4, 16, at),
            'U' if !prefix.bytes => (8, 16, at),
            '0'..='3' => (3, 8, at - 1),
            _ => return Err("unable to unescape string".to_owned()),
        };
        let digits: String = content.iter().skip(from).take(length).collect();
        let code = u32::from_str_radix(&digits, radix)
            .ok()
            .filter(|_| digits.chars().count() == length)
            .ok_or("unable to unescape string")?;
        at = from + length;
        if prefix.bytes {
            let byte = u8::try_from(code).map_err(|_| "unable to unescape string")?;
            out.push(byte);
        } else {
            let character = char::from_u32(code).ok_or("invalid unicode code point")?;
            put(&mut out, character);
        }
    }
    if prefix.bytes {
        return Ok(Token::Bytes(out));
    }
    String::from_utf8(out)
        .map(Token::String)
        .map_err(|_| "unable to unescape string".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Token> {
        let characters: Vec<char> = text.chars().collect();
        tokens(&characters)
            .0
            .into_iter()
            .map(|placed| placed.token)
            .collect()
    }

    #[test]
    fn literals_are_read() {
        assert_eq!(
            read(r#"1 0x1f 2u 1.5e3 'a\n\u00e4' r"\d" b'\xff\000' true // end"#),
            vec![
                Token::Int(1),
                Token::Int(31),
                Token::Uint(2),
                Token::Double(1500.0),
                Token::String("a\nä".to_owned()),
                Token::String("\\d".to_owned()),
                Token::Bytes(vec![255, 0]),
                Token::True,
                Token::End
            ]
        );
    }

    #[test]
    fn an_open_string_is_refused() {
        let characters: Vec<char> = "'a".chars().collect();
        let (_, mistakes) = tokens(&characters);
        assert_eq!(
            mistakes[0].message,
            "Syntax error: token recognition error at: ''a'"
        );
    }
}
