//! Text into an expression, by recursive descent over the language's grammar.
//!
//! Invariants
//! - Depth and number of nodes are bounded.
//! - The first mistake ends the parse and is told with its place.

use crate::ast::{Element, Entry, Expr, ExprKind, FieldInit, Parsed, operators};
use crate::environment::Environment;
use crate::error::Mistake;
use crate::lexer::{Placed, RESERVED, Token, tokens};
use crate::limits::{MAX_DEPTH, MAX_EXPRESSION_CODE_POINTS, MAX_NESTING, MAX_NODES};
use crate::macros::{Expanded, expand};
use crate::value::Value;

const START_OF_EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', \
     NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// The expression that the text is, or what is wrong with it.
pub(crate) fn parse(source: &str, environment: &Environment) -> Result<Parsed, Vec<Mistake>> {
    let characters: Vec<char> = source.chars().collect();
    if characters.len() > MAX_EXPRESSION_CODE_POINTS {
        return Err(vec![Mistake {
            at: 0,
            message: format!(
                "expression code point size exceeds limit: size: {}, limit {MAX_EXPRESSION_CODE_POINTS}",
                characters.len()
            ),
        }]);
    }
    let (tokens, mut mistakes) = tokens(&characters);
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        builder: Builder {
            binds: environment.binds(),
            ..Builder::default()
        },
    };
    match parser.whole() {
        Ok(root) if mistakes.is_empty() => Ok(Parsed {
            root,
            offsets: parser.builder.offsets,
        }),
        Ok(_) => Err(mistakes),
        Err(mistake) => {
            mistakes.push(mistake);
            Err(mistakes)
        }
    }
}

/// Makes nodes and gives them ids.
#[derive(Default)]
pub(crate) struct Builder {
    offsets: Vec<usize>,
    /// Levels under each node.
    depths: Vec<usize>,
    /// Whether `cel.bind` is a macro.
    binds: bool,
}

impl Builder {
    /// Whether `cel.bind` is a macro.
    pub(crate) fn binds(&self) -> bool {
        self.binds
    }

    /// A node that stands there.
    pub(crate) fn expr(&mut self, at: usize, kind: ExprKind) -> Expr {
        let mut deepest = 0;
        kind.each_child(&mut |child| {
            deepest = deepest.max(self.depths.get(child.id).copied().unwrap_or_default());
        });
        let id = self.id(at);
        self.depths[id] = deepest + 1;
        Expr { id, kind }
    }

    fn id(&mut self, at: usize) -> usize {
        self.offsets.push(at);
        self.depths.push(0);
        self.offsets.len() - 1
    }

    /// Where the node stands.
    pub(crate) fn offset(&self, id: usize) -> usize {
        self.offsets.get(id).copied().unwrap_or_default()
    }
}

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
    builder: Builder,
}

type Parse<T> = Result<T, Mistake>;

impl Parser {
    fn placed(&self) -> &Placed {
        // The last token is the end, and nothing moves past it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> &Token {
        &self.placed().token
    }

    fn at(&self) -> usize {
        self.placed().at
    }

    fn advance(&mut self) {
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(next) if *next == symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Parse<()> {
        if self.eat(symbol) {
            return Ok(());
        }
        if *self.peek() == Token::End && symbol == ")" {
            return Err(self.wrong("Syntax error: missing ')' at '<EOF>'"));
        }
        Err(self.unexpected(&format!("'{symbol}'")))
    }

    /// Everything, to the end.
    fn whole(&mut self) -> Parse<Expr> {
        let root = self.expression()?;
        if *self.peek() == Token::End {
            return Ok(root);
        }
        let last = self.tokens.get(self.next + 1).map(|placed| &placed.token);
        if last == Some(&Token::End) {
            let text = &self.placed().text;
            return Err(self.wrong(format!(
                "Syntax error: extraneous input '{text}' expecting <EOF>"
            )));
        }
        Err(self.unexpected("<EOF>"))
    }

    fn wrong(&self, message: impl Into<String>) -> Mistake {
        Mistake {
            at: self.at(),
            message: message.into(),
        }
    }

    fn unexpected(&self, expecting: &str) -> Mistake {
        let shown = match self.peek() {
            Token::End => "<EOF>",
            _ => self.placed().text.as_str(),
        };
        self.wrong(format!(
            "Syntax error: mismatched input '{shown}' expecting {expecting}"
        ))
    }

    fn make(&mut self, at: usize, kind: ExprKind) -> Parse<Expr> {
        let made = self.builder.expr(at, kind);
        self.checked(made)
    }

    fn checked(&self, made: Expr) -> Parse<Expr> {
        if self.builder.offsets.len() > MAX_NODES {
            return Err(self.wrong("expression has too many parts"));
        }
        let depth = self.builder.depths.get(made.id).copied();
        if depth.unwrap_or_default() > MAX_DEPTH {
            return Err(self.too_deep(MAX_DEPTH));
        }
        Ok(made)
    }

    fn too_deep(&self, limit: usize) -> Mistake {
        self.wrong(format!("expression recursion limit exceeded: {limit}"))
    }

    fn call(
        &mut self,
        at: usize,
        function: &str,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    ) -> Parse<Expr> {
        match expand(&mut self.builder, at, function, target, args)? {
            Expanded::Yes(expr) => self.checked(expr),
            Expanded::No(target, args) => self.make(
                at,
                ExprKind::Call {
                    function: function.to_owned(),
                    target,
                    args,
                },
            ),
        }
    }

    fn operator(&mut self, at: usize, name: &str, args: Vec<Expr>) -> Parse<Expr> {
        self.make(
            at,
            ExprKind::Call {
                function: name.to_owned(),
                target: None,
                args,
            },
        )
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.depth >= MAX_NESTING {
            return Err(self.too_deep(MAX_NESTING));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn expression(&mut self) -> Parse<Expr> {
        self.nested(|parser| {
            let condition = parser.either()?;
            let at = parser.at();
            if !parser.eat("?") {
                return Ok(condition);
            }
            let yes = parser.either()?;
            parser.expect(":")?;
            let no = parser.expression()?;
            parser.operator(at, operators::CONDITIONAL, vec![condition, yes, no])
        })
    }

    fn either(&mut self) -> Parse<Expr> {
        self.chain("||", operators::OR, Self::both)
    }

    fn both(&mut self) -> Parse<Expr> {
        self.chain("&&", operators::AND, |parser| parser.relation())
    }

    /// Terms of one logical operator, as a balanced tree: long chains stay shallow.
    fn chain(
        &mut self,
        symbol: &str,
        operator: &str,
        term: impl Fn(&mut Self) -> Parse<Expr>,
    ) -> Parse<Expr> {
        let mut terms = vec![term(self)?];
        let mut places = Vec::new();
        loop {
            let at = self.at();
            if !self.eat(symbol) {
                break;
            }
            places.push(at);
            terms.push(term(self)?);
        }
        self.balanced(operator, terms, &places)
    }

    fn balanced(&mut self, operator: &str, mut terms: Vec<Expr>, places: &[usize]) -> Parse<Expr> {
        if terms.len() < 2 {
            return terms
                .pop()
                .ok_or_else(|| self.unexpected(START_OF_EXPRESSION));
        }
        let middle = (terms.len() - 1) / 2;
        let right = terms.split_off(middle + 1);
        let left = self.balanced(operator, terms, &places[..middle])?;
        let right = self.balanced(operator, right, &places[middle + 1..])?;
        self.operator(places[middle], operator, vec![left, right])
    }

    fn relation(&mut self) -> Parse<Expr> {
        self.left_associative(
            &[
                ("==", operators::EQUALS),
                ("!=", operators::NOT_EQUALS),
                ("<=", "_<=_"),
                (">=", "_>=_"),
                ("<", "_<_"),
                (">", "_>_"),
                ("in", operators::IN),
            ],
            |parser| {
                parser.left_associative(&[("+", operators::ADD), ("-", "_-_")], |parser| {
                    parser
                        .left_associative(&[("*", "_*_"), ("/", "_/_"), ("%", "_%_")], Self::unary)
                })
            },
        )
    }

    fn left_associative(
        &mut self,
        operators: &[(&str, &str)],
        term: impl Fn(&mut Self) -> Parse<Expr>,
    ) -> Parse<Expr> {
        let mut left = term(self)?;
        'more: loop {
            let at = self.at();
            for (symbol, name) in operators {
                let found = match self.peek() {
                    Token::In => *symbol == "in",
                    Token::Symbol(next) => next == symbol,
                    _ => false,
                };
                if found {
                    self.advance();
                    let right = term(self)?;
                    left = self.operator(at, name, vec![left, right])?;
                    continue 'more;
                }
            }
            return Ok(left);
        }
    }

    fn unary(&mut self) -> Parse<Expr> {
        let at = self.at();
        let (symbol, name) = match self.peek() {
            Token::Symbol("!") => ("!", operators::NOT),
            Token::Symbol("-") => ("-", operators::NEGATE),
            _ => return self.member(),
        };
        let mut count = 0_usize;
        while matches!(self.peek(), Token::Symbol(next) if *next == symbol) {
            if symbol == "-"
                && count.is_multiple_of(2)
                && let Some(literal) = self.negative_literal(at)?
            {
                return Ok(literal);
            }
            self.advance();
            count += 1;
        }
        let operand = self.member()?;
        if count.is_multiple_of(2) {
            return Ok(operand);
        }
        self.operator(at, name, vec![operand])
    }

    /// `-1` is one literal.
    fn negative_literal(&mut self, at: usize) -> Parse<Option<Expr>> {
        let value = match self.tokens.get(self.next + 1).map(|placed| &placed.token) {
            Some(Token::Int(value)) => Value::Int(value.wrapping_neg()),
            Some(Token::Double(value)) => Value::Double(-value),
            _ => return Ok(None),
        };
        self.advance();
        self.advance();
        let literal = self.make(at, ExprKind::Literal(value))?;
        self.suffixes(literal).map(Some)
    }

    fn member(&mut self) -> Parse<Expr> {
        let primary = self.primary()?;
        self.suffixes(primary)
    }

    fn suffixes(&mut self, mut operand: Expr) -> Parse<Expr> {
        loop {
            let at = self.at();
            if self.eat(".") {
                operand = self.selection(operand, at)?;
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expression()?;
                self.expect("]")?;
                let name = if optional {
                    operators::OPTIONAL_INDEX
                } else {
                    operators::INDEX
                };
                operand = self.operator(at, name, vec![operand, index])?;
            } else if matches!(self.peek(), Token::Symbol("{")) {
                let Some(name) = operand.qualified_name() else {
                    return Ok(operand);
                };
                self.advance();
                operand = self.object(name, at)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn selection(&mut self, operand: Expr, dot: usize) -> Parse<Expr> {
        let optional = self.eat("?");
        let place = self.at();
        let field = match self.peek() {
            Token::Ident(name) | Token::Quoted(name) => name.clone(),
            Token::Symbol(".") => {
                return Err(self.wrong("Syntax error: no viable alternative at input '..'"));
            }
            _ => return Err(self.unexpected("IDENTIFIER")),
        };
        self.advance();
        if optional {
            let name = Value::text(field);
            let name = self.make(place, ExprKind::Literal(name))?;
            return self.operator(dot, operators::OPTIONAL_SELECT, vec![operand, name]);
        }
        let open = self.at();
        if self.eat("(") {
            let args = self.arguments(")")?;
            return self.call(open, &field, Some(Box::new(operand)), args);
        }
        self.make(
            dot,
            ExprKind::Select {
                operand: Box::new(operand),
                field,
                test_only: false,
            },
        )
    }

    fn primary(&mut self) -> Parse<Expr> {
        let at = self.at();
        let token = self.peek().clone();
        let literal = match token {
            Token::Int(i64::MIN) => return Err(self.wrong("invalid int literal")),
            Token::Int(value) => Value::Int(value),
            Token::Uint(value) => Value::Uint(value),
            Token::Double(value) => Value::Double(value),
            Token::String(text) => Value::text(text),
            Token::Bytes(bytes) => Value::Bytes(bytes.into()),
            Token::True => Value::Bool(true),
            Token::False => Value::Bool(false),
            Token::Null => Value::Null,
            Token::Ident(name) => return self.name(at, name),
            Token::Symbol(".") => {
                self.advance();
                let Token::Ident(name) = self.peek().clone() else {
                    return Err(self.unexpected("IDENTIFIER"));
                };
                return self.name(at, name);
            }
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => {
                self.advance();
                return self.list(at);
            }
            Token::Symbol("{") => {
                self.advance();
                return self.map(at);
            }
            _ => return Err(self.unexpected(START_OF_EXPRESSION)),
        };
        self.advance();
        self.make(at, ExprKind::Literal(literal))
    }

    fn name(&mut self, at: usize, name: String) -> Parse<Expr> {
        self.advance();
        let open = self.at();
        if self.eat("(") {
            let args = self.arguments(")")?;
            return self.call(open, &name, None, args);
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(Mistake {
                at,
                message: format!("reserved identifier: {name}"),
            });
        }
        self.make(at, ExprKind::Ident(name))
    }

    fn arguments(&mut self, end: &str) -> Parse<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(end) {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(end)?;
        Ok(args)
    }

    fn list(&mut self, at: usize) -> Parse<Expr> {
        let mut elements = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            let value = self.expression()?;
            elements.push(Element { value, optional });
            if !self.eat(",") {
                if !self.eat("]") {
                    return Err(self.unexpected("{']', ','}"));
                }
                break;
            }
        }
        self.make(at, ExprKind::List(elements))
    }

    fn map(&mut self, at: usize) -> Parse<Expr> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            entries.push(Entry {
                key,
                value,
                optional,
            });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.make(at, ExprKind::Map(entries))
    }

    fn object(&mut self, name: String, at: usize) -> Parse<Expr> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let (Token::Ident(field) | Token::Quoted(field)) = self.peek().clone() else {
                return Err(self.unexpected("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}"));
            };
            self.advance();
            let colon = self.at();
            self.expect(":")?;
            let value = self.expression()?;
            let id = self.builder.id(colon);
            fields.push(FieldInit {
                id,
                name: field,
                value,
                optional,
            });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.make(at, ExprKind::Struct { name, fields })
    }
}

#[cfg(test)]
mod tests;
