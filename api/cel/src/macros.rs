//! Macros: calls that are written out as other expressions, before anything is checked.
//!
//! Invariant: what a macro writes out stands where the call stood.

use crate::ast::{ACCUMULATOR, Comprehension, Element, Entry, Expr, ExprKind, operators};
use crate::error::Mistake;
use crate::parser::Builder;
use crate::value::Value;

/// What became of a call.
pub(crate) enum Expanded {
    /// It is none of the macros.
    No(Option<Box<Expr>>, Vec<Expr>),
    /// It is this expression.
    Yes(Expr),
}

/// Writes the call out, if it is a macro.
pub(crate) fn expand(
    builder: &mut Builder,
    at: usize,
    function: &str,
    target: Option<Box<Expr>>,
    args: Vec<Expr>,
) -> Result<Expanded, Mistake> {
    let binds = builder.binds();
    let mut write = Writer { builder, at };
    let Some(range) = target else {
        if function == "has" && args.len() == 1 {
            return write.has(args).map(Expanded::Yes);
        }
        return Ok(Expanded::No(None, args));
    };
    let count = args.len();
    let expanded = match (function, count) {
        ("all" | "exists" | "exists_one" | "existsOne" | "filter", 2)
        | ("map", 2 | 3)
        | ("all" | "exists" | "exists_one" | "existsOne", 3)
        | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => {
            write.fold(function, *range, args)?
        }
        ("optMap" | "optFlatMap", 2) => write.optional(function, *range, args)?,
        ("bind", 3) if binds && matches!(&range.kind, ExprKind::Ident(name) if name == "cel") => {
            write.named(args)?
        }
        ("sortBy", 2) => write.sort_by(*range, args)?,
        _ => return Ok(Expanded::No(Some(range), args)),
    };
    Ok(Expanded::Yes(expanded))
}

struct Writer<'a> {
    builder: &'a mut Builder,
    at: usize,
}

impl Writer<'_> {
    fn make(&mut self, kind: ExprKind) -> Expr {
        self.builder.expr(self.at, kind)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.make(ExprKind::Call {
            function: function.to_owned(),
            target: None,
            args,
        })
    }

    fn member(&mut self, target: Expr, function: &str) -> Expr {
        self.make(ExprKind::Call {
            function: function.to_owned(),
            target: Some(Box::new(target)),
            args: Vec::new(),
        })
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.make(ExprKind::Ident(name.to_owned()))
    }

    fn accumulator(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn literal(&mut self, value: Value<'static>) -> Expr {
        self.make(ExprKind::Literal(value))
    }

    fn list(&mut self, of: Vec<Expr>) -> Expr {
        let elements = of
            .into_iter()
            .map(|value| Element {
                value,
                optional: false,
            })
            .collect();
        self.make(ExprKind::List(elements))
    }

    fn wrong(&self, of: &Expr, message: impl Into<String>) -> Mistake {
        Mistake {
            at: self.builder.offset(of.id),
            message: message.into(),
        }
    }

    fn has(&mut self, args: Vec<Expr>) -> Result<Expr, Mistake> {
        let Some(arg) = args.into_iter().next() else {
            return Ok(self.literal(Value::Null));
        };
        match arg.kind {
            ExprKind::Select {
                operand,
                field,
                test_only: false,
            } => Ok(self.make(ExprKind::Select {
                operand,
                field,
                test_only: true,
            })),
            _ => Err(self.wrong(&arg, "invalid argument to has() macro")),
        }
    }

    fn variable(&self, of: &Expr, accumulator: &str) -> Result<String, Mistake> {
        match &of.kind {
            ExprKind::Ident(name) if name == accumulator || name == "__result__" => {
                Err(self.wrong(of, "iteration variable overwrites accumulator variable"))
            }
            ExprKind::Ident(name) => Ok(name.clone()),
            _ => Err(self.wrong(of, "argument must be a simple name")),
        }
    }

    /// The macros over lists and maps, with one variable or two.
    fn fold(&mut self, function: &str, range: Expr, args: Vec<Expr>) -> Result<Expr, Mistake> {
        let two = matches!(
            (function, args.len()),
            ("all" | "exists" | "exists_one" | "existsOne", 3)
                | ("transformList" | "transformMap" | "transformMapEntry", _)
        );
        let mut args = args.into_iter();
        let mut next = |write: &mut Self| match args.next() {
            Some(arg) => arg,
            None => write.literal(Value::Null),
        };
        let first = next(self);
        let variable = self.variable(&first, ACCUMULATOR)?;
        let variable2 = if two {
            let second = next(self);
            let name = self.variable(&second, ACCUMULATOR)?;
            if name == variable {
                return Err(self.wrong(&second, format!("duplicate variable name: {name}")));
            }
            Some(name)
        } else {
            None
        };
        let rest: Vec<Expr> = args.collect();
        let (init, condition, step, result) = self.parts(function, first, rest)?;
        Ok(self.make(ExprKind::Comprehension(Box::new(Comprehension {
            range,
            variable,
            variable2,
            accumulator: ACCUMULATOR.to_owned(),
            init,
            condition,
            step,
            result,
        }))))
    }

    fn parts(
        &mut self,
        function: &str,
        variable: Expr,
        mut rest: Vec<Expr>,
    ) -> Result<(Expr, Expr, Expr, Expr), Mistake> {
        let body = match rest.pop() {
            Some(body) => body,
            None => self.literal(Value::Null),
        };
        let always = self.literal(Value::Bool(true));
        Ok(match function {
            "all" => {
                let init = self.literal(Value::Bool(true));
                let so_far = self.accumulator();
                let condition = self.call(operators::NOT_STRICTLY_FALSE, vec![so_far]);
                let so_far = self.accumulator();
                let step = self.call(operators::AND, vec![so_far, body]);
                (init, condition, step, self.accumulator())
            }
            "exists" => {
                let init = self.literal(Value::Bool(false));
                let so_far = self.accumulator();
                let not = self.call(operators::NOT, vec![so_far]);
                let condition = self.call(operators::NOT_STRICTLY_FALSE, vec![not]);
                let so_far = self.accumulator();
                let step = self.call(operators::OR, vec![so_far, body]);
                (init, condition, step, self.accumulator())
            }
            "exists_one" | "existsOne" => {
                let init = self.literal(Value::Int(0));
                let (so_far, one) = (self.accumulator(), self.literal(Value::Int(1)));
                let more = self.call(operators::ADD, vec![so_far, one]);
                let same = self.accumulator();
                let step = self.call(operators::CONDITIONAL, vec![body, more, same]);
                let (so_far, one) = (self.accumulator(), self.literal(Value::Int(1)));
                let result = self.call(operators::EQUALS, vec![so_far, one]);
                (init, always, step, result)
            }
            "map" | "transformList" | "filter" => {
                let (filter, element) = match function {
                    "filter" => (Some(body), variable),
                    _ => (rest.pop(), body),
                };
                let init = self.list(Vec::new());
                let (so_far, added) = (self.accumulator(), self.list(vec![element]));
                let more = self.call(operators::ADD, vec![so_far, added]);
                let step = self.when(filter, more);
                (init, always, step, self.accumulator())
            }
            _ => {
                let init = self.make(ExprKind::Map(Vec::<Entry>::new()));
                let filter = rest.pop();
                let so_far = self.accumulator();
                let args = match function {
                    "transformMap" => vec![so_far, variable, body],
                    _ => vec![so_far, body],
                };
                let more = self.call(operators::MAP_INSERT, args);
                let step = self.when(filter, more);
                (init, always, step, self.accumulator())
            }
        })
    }

    /// `filter ? more : @result`
    fn when(&mut self, filter: Option<Expr>, more: Expr) -> Expr {
        match filter {
            Some(filter) => {
                let same = self.accumulator();
                self.call(operators::CONDITIONAL, vec![filter, more, same])
            }
            None => more,
        }
    }

    /// `target.hasValue() ? optional.of(let variable = target.value() in body) : none`
    fn optional(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Result<Expr, Mistake> {
        let mut args = args.into_iter();
        let (Some(variable), Some(body)) = (args.next(), args.next()) else {
            return Ok(self.literal(Value::Null));
        };
        let name = self.variable(&variable, ACCUMULATOR)?;
        let has_value = self.member(target.clone(), "hasValue");
        let init = self.member(target, "value");
        let bound = self.bind(name, init, body);
        let optional = self.ident("optional");
        let some = match function {
            "optMap" => self.make(ExprKind::Call {
                function: "of".to_owned(),
                target: Some(Box::new(optional)),
                args: vec![bound],
            }),
            _ => bound,
        };
        let optional = self.ident("optional");
        let none = self.member(optional, "none");
        Ok(self.call(operators::CONDITIONAL, vec![has_value, some, none]))
    }

    fn named(&mut self, args: Vec<Expr>) -> Result<Expr, Mistake> {
        let mut args = args.into_iter();
        let (Some(name), Some(init), Some(body)) = (args.next(), args.next(), args.next()) else {
            return Ok(self.literal(Value::Null));
        };
        match &name.kind {
            ExprKind::Ident(own) => Ok(self.bind(own.clone(), init, body)),
            _ => Err(self.wrong(
                &name,
                "cel.bind() variable names must be simple identifiers",
            )),
        }
    }

    /// `let name = init in body`: a fold over nothing.
    fn bind(&mut self, name: String, init: Expr, body: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Value::Bool(false));
        let step = self.ident(&name);
        self.make(ExprKind::Comprehension(Box::new(Comprehension {
            range,
            variable: "#unused".to_owned(),
            variable2: None,
            accumulator: name,
            init,
            condition,
            step,
            result: body,
        })))
    }

    /// `list.@sortByAssociatedKeys(list.map(variable, key))`
    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Result<Expr, Mistake> {
        let keys = self.fold("map", target.clone(), args)?;
        Ok(self.make(ExprKind::Call {
            function: "@sortByAssociatedKeys".to_owned(),
            target: Some(Box::new(target)),
            args: vec![keys],
        }))
    }
}
