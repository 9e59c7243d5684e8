//! The language by tables: expressions and their values, and the mistakes that are
//! refused before anything runs.

use std::collections::BTreeMap;

use nautilus_cel::{
    Bindings, Budget, Declaration, Environment, EvalError, Field, Program, Shape, Type, Value,
};
use serde_json::json;

fn field(key: &str, declaration: Declaration) -> (String, Field) {
    let key = key.to_owned();
    (key.clone(), Field { key, declaration })
}

fn of(shape: Shape) -> Declaration {
    Declaration {
        shape,
        max_elements: None,
        min_bytes: 3,
    }
}

fn environment() -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare("self", self_declaration());
    environment.declare("any", Declaration::dynamic());
    environment
}

fn evaluate(source: &str) -> Result<String, String> {
    let object = json!({"spec": {
        "replicas": 3, "ratio": 1, "name": "näme", "port": "http",
        "since": "2024-02-29T12:00:00.5Z", "every": "1h30m", "raw": "aGk=",
        "names": ["b", "a", "c"], "labels": {"k": "v", "x.y/z": "w"}
    }});
    let program = Program::compile(source, &environment(), &[]).map_err(|e| e.message)?;
    let mut bindings = Bindings::default();
    let any = Value::from_json(&object, &Declaration::dynamic()).map_err(|e| e.to_string())?;
    let declaration = self_declaration();
    let this = Value::from_json(&object, &declaration).map_err(|e| e.to_string())?;
    bindings.set("self", this).set("any", any);
    let value = program
        .evaluate(&bindings, &mut Budget::per_call())
        .map_err(|error| error.to_string())?;
    Ok(match value.to_json() {
        Ok(json) => json.to_string(),
        Err(_) => value.to_string(),
    })
}

fn self_declaration() -> Declaration {
    let spec = BTreeMap::from([
        field("replicas", Declaration::int()),
        field("ratio", Declaration::double()),
        field("name", Declaration::string(Some(40))),
        field("port", Declaration::dynamic()),
        field("since", of(Shape::Timestamp)),
        field("every", of(Shape::Duration)),
        field("raw", of(Shape::Bytes)),
        field(
            "names",
            Declaration::list(Declaration::string(Some(10)), Some(5)),
        ),
        field("labels", Declaration::map(Declaration::string(None), None)),
    ]);
    let root = BTreeMap::from([field("spec", Declaration::object("self.spec", spec))]);
    Declaration::object("selfType", root)
}

#[test]
fn expressions_have_their_values() {
    for (source, expected) in [
        ("1 + 2 * 3 - -4", "11"),
        ("7 / 2 * 2 + 7 % 2", "7"),
        ("1.5 + 2.5", "4.0"),
        ("2u + 3u", "5"),
        ("'a' + \"b\" + r'\\n'", "\"ab\\\\n\""),
        ("true || any.missing", "true"),
        ("any.missing || true", "true"),
        ("false && any.missing", "false"),
        ("1 < 1.5 && 2u > 1 && dyn(1) == 1.0", "true"),
        ("!false ? 'yes' : 'no'", "\"yes\""),
        ("[1, 2, 3][1]", "2"),
        ("{'a': 1}['a'] + {'b': 2}.b", "3"),
        (
            "2 in [1, 2] && 'k' in self.spec.labels && !('z' in {'a': 1})",
            "true",
        ),
        ("size('näme') + 'abc'.size() + [1].size() + {}.size()", "8"),
        ("has(self.spec.name) && !has(any.spec.nothing)", "true"),
        ("self.spec.replicas > 2 && self.spec.ratio == 1.0", "true"),
        (
            "self.spec.port == 'http' && type(self.spec.port) == string",
            "true",
        ),
        (
            "self.spec.since.getFullYear() == 2024 && self.spec.since.getDayOfYear() == 59",
            "true",
        ),
        (
            "self.spec.since + duration('12h')",
            "\"2024-03-01T00:00:00.5Z\"",
        ),
        ("self.spec.every.getMinutes()", "90"),
        ("string(self.spec.raw)", "\"hi\""),
        ("self.spec.names.all(n, n.size() == 1)", "true"),
        (
            "self.spec.names.exists(n, n == 'a') && !self.spec.names.exists_one(n, n > 'a')",
            "true",
        ),
        ("self.spec.names.map(n, n + '!')", "[\"b!\",\"a!\",\"c!\"]"),
        (
            "self.spec.names.map(n, n != 'a', n + '!')",
            "[\"b!\",\"c!\"]",
        ),
        ("self.spec.names.filter(n, n > 'a').size()", "2"),
        ("self.spec.labels.all(k, k.size() > 0)", "true"),
        ("self.spec.names.all(i, n, i < 3 && n != '')", "true"),
        ("[1, 2].transformList(i, v, i + v)", "[1,3]"),
        (
            "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 2)",
            "{\"b\":4}",
        ),
        ("{'a': 1}.transformMapEntry(k, v, {v: k})[1]", "\"a\""),
        ("[[1, 2], [3]].flatten()", "[1,2,3]"),
        ("[3, 1, 2].sort()", "[1,2,3]"),
        ("[{'n': 2}, {'n': 1}].sortBy(e, e.n)[0].n", "1"),
        ("lists.range(3).reverse()", "[2,1,0]"),
        ("[1, 1, 2].distinct()", "[1,2]"),
        ("[1, 2, 3].slice(1, 3)", "[2,3]"),
        (
            "[1, 2].isSorted() && [1, 2].sum() == 3 && [1, 2].max() == 2 && [2, 1].min() == 1",
            "true",
        ),
        ("['a', 'b'].indexOf('b') + ['a'].lastIndexOf('z')", "0"),
        ("[1, 2].includes(2) && 'a'.includes('a')", "true"),
        (
            "sets.contains([1, 2], [2]) && sets.equivalent([1], [1, 1]) && sets.intersects([1], [1])",
            "true",
        ),
        ("'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"),
        ("'abc'.split('')", "[\"a\",\"b\",\"c\"]"),
        ("['a', 'b'].join('-')", "\"a-b\""),
        (
            "'hello'.substring(1, 3) + 'x'.upperAscii() + ' y '.trim()",
            "\"elXy\"",
        ),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        (
            "'tacocat'.indexOf('ac') + 'tacocat'.lastIndexOf('at') + 'tacocat'.indexOf('')",
            "6",
        ),
        (
            "'abc'.charAt(1) + strings.quote('a\"b')",
            "\"b\\\"a\\\\\\\"b\\\"\"",
        ),
        (
            "'%s is %d and %.2f'.format(['x', 5, 1.5])",
            "\"x is 5 and 1.50\"",
        ),
        ("'a1'.matches('^[a-z][0-9]$') && matches('b', 'b')", "true"),
        (
            "'abc 123'.find('[0-9]+') + 'a1b2'.findAll('[0-9]', 1)[0]",
            "\"1231\"",
        ),
        (
            "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && isQuantity('1') && !isQuantity('x')",
            "true",
        ),
        ("quantity('50k').add(20).asInteger()", "50020"),
        (
            "quantity('1').sub(quantity('500m')).asApproximateFloat()",
            "0.5",
        ),
        (
            "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('::ffff:1.2.3.4')",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.1.0.0/16').masked().prefixLength() == 16",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !isCIDR('10.0.0.0/33')",
            "true",
        ),
        (
            "url('https://a.b:80/p?q=1').getPort() + url('https://a.b/p').getEscapedPath()",
            "\"80/p\"",
        ),
        ("url('https://a/?k=v&k=w').getQuery()['k']", "[\"v\",\"w\"]"),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2",
            "true",
        ),
        ("format.dns1123Label().validate('Bad').hasValue()", "true"),
        (
            "format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
            "false",
        ),
        ("any.?spec.?nothing.orValue('none')", "\"none\""),
        (
            "any.spec.?name.value() + any[?'zzz'].or(optional.of('!')).value()",
            "\"näme!\"",
        ),
        ("[?any.?nothing, ?any.spec.?name]", "[\"näme\"]"),
        ("{?'a': any.?nothing, 'b': dyn(1)}", "{\"b\":1}"),
        ("any.spec.?replicas.optMap(r, r * 2).orValue(0)", "6"),
        (
            "optional.none().hasValue() || [1].first().value() == 1",
            "true",
        ),
        ("optional.unwrap([optional.of(1), optional.none()])", "[1]"),
        (
            "int('5') + int(2.9) + int(3u) + int(timestamp('1970-01-01T00:00:05Z'))",
            "15",
        ),
        (
            "string(1.0) + string(true) + string(duration('90s'))",
            "\"1true90s\"",
        ),
        (
            "bool('true') && double('1.5') == 1.5 && uint(3) == 3u",
            "true",
        ),
        (
            "type(1) == int && type([]) == list && type(null) == null_type",
            "true",
        ),
        ("bytes('a') + b'b'", "\"YWI=\""),
        (
            "dyn('a') == 'a' && dyn([1]) == [1] && dyn({'a': 1}) != dyn(1)",
            "true",
        ),
    ] {
        assert_eq!(evaluate(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn failures_are_told_in_the_references_words() {
    for (source, expected) in [
        ("any.nothing", "no such key: nothing"),
        ("any['nothing']", "no such key: nothing"),
        ("[1][5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("optional.none().value()", "optional.none() dereference"),
        ("dyn([]).max()", "max called on empty list"),
        ("'abc'.substring(9)", "index out of range: 9"),
        ("any.nothing && true", "no such key: nothing"),
        ("{'a': 1, 'a': 2}", "duplicate key in map: a"),
        (
            "quantity('x')",
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(evaluate(source), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn mistakes_are_refused_before_anything_runs() {
    let refused = |source: &str| {
        Program::compile(source, &environment(), &[])
            .expect_err(source)
            .message
    };
    assert_eq!(
        refused("self.spec.replicas > nothing"),
        "ERROR: <input>:1:22: undeclared reference to 'nothing' (in container '')\n | self.spec.replicas > nothing\n | .....................^"
    );
    for (source, expected) in [
        ("self.spec.missing", "undefined field 'missing'"),
        (
            "self.spec.replicas == 'a'",
            "found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "self.spec.replicas + 'a'",
            "found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "self.spec.name.startsWith(1)",
            "found no matching overload for 'startsWith' applied to 'string.(int)'",
        ),
        (
            "self.spec.name.nothing()",
            "undeclared reference to 'nothing' (in container '')",
        ),
        (
            "nothing(1)",
            "undeclared reference to 'nothing' (in container '')",
        ),
        (
            "self.spec.name && true",
            "expected type 'bool' but found 'string'",
        ),
        (
            "self.spec.replicas.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        (
            "self.spec.replicas.x",
            "type 'int' does not support field selection",
        ),
        ("'a'.matches('(')", "invalid matches argument"),
        ("duration('x')", "invalid duration argument"),
        ("timestamp('x')", "invalid timestamp argument"),
        ("has(self)", "invalid argument to has() macro"),
        (
            "1 +",
            "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
        (
            "jsonpatch.escapeKey('a')",
            "undeclared reference to 'jsonpatch' (in container '')",
        ),
        (
            "Object{a: 1}",
            "undeclared reference to 'Object' (in container '')",
        ),
    ] {
        let message = refused(source);
        assert!(message.contains(expected), "{source}: {message}");
    }
    let error = Program::compile("1 + 1", &environment(), &[Type::Bool]).expect_err("an int");
    assert_eq!(error.message, "must evaluate to bool");
}

#[test]
fn what_runs_away_ends_with_its_budget() {
    let mut environment = environment();
    environment.declare("big", Declaration::list(Declaration::int(), None));
    let numbers: Vec<i64> = (0..5_000).collect();
    let big = json!(numbers);
    let mut bindings = Bindings::default();
    let declared = Declaration::list(Declaration::int(), None);
    bindings.set("big", Value::from_json(&big, &declared).expect("a list"));
    for source in [
        "big.all(a, big.all(b, big.all(c, a + b + c > -1)))",
        "big.map(a, big).map(l, l.map(x, big)).size() > 0",
        "big.exists(a, big.filter(b, b == a).size() > 5000)",
        "lists.range(1000000000).size() > 0",
        "sets.contains(big.map(x, x + 1), big.map(x, x - 1))",
        "big.distinct().size() > 0",
    ] {
        let program = Program::compile(source, &environment, &[]).expect(source);
        let mut budget = Budget::per_object();
        let outcome = program.evaluate(&bindings, &mut budget);
        assert_eq!(outcome.err(), Some(EvalError::CostExceeded), "{source}");
        assert!(budget.left() < Budget::per_object().left());
    }
}

#[test]
fn a_list_that_doubles_ends() {
    // `+` on lists costs one whatever their length, as the reference has it: the bound
    // is on the work.
    let mut source = "[1]".to_owned();
    for _ in 0..40 {
        source = format!("[{source}].map(x, x + x)[0]");
        if source.len() > 90_000 {
            break;
        }
    }
    let outcome = Program::compile(&source, &Environment::kubernetes(), &[]).map(|program| {
        program
            .evaluate(&Bindings::default(), &mut Budget::per_call())
            .map(|value| value.to_string())
    });
    assert!(
        matches!(outcome, Err(_) | Ok(Err(EvalError::CostExceeded))),
        "{outcome:?}"
    );
}

#[test]
fn deep_expressions_do_not_end_the_thread() {
    for source in [
        format!("{}1{}", "(".repeat(60), ")".repeat(60)),
        format!("1{}", " + 1".repeat(150)),
        format!("{}1{}", "[".repeat(60), "]".repeat(60)),
        format!("true{}", " && true".repeat(10_000)),
        format!("{}true{}", "[1].all(x, ".repeat(30), ")".repeat(30)),
    ] {
        let program = Program::compile(&source, &Environment::kubernetes(), &[]);
        let program =
            program.unwrap_or_else(|error| panic!("{}: {}", &source[..20], error.message));
        program
            .evaluate(&Bindings::default(), &mut Budget::per_call())
            .expect("evaluates");
    }
}

#[test]
fn fields_that_are_computed_are_computed_when_read() {
    let mut environment = Environment::kubernetes();
    let fields = BTreeMap::from([
        field("a", Declaration::int()),
        field("b", Declaration::int()),
    ]);
    environment.declare("variables", Declaration::object("variables", fields));
    let program = Program::compile("variables.a > 1 || variables.b > 0", &environment, &[])
        .expect("compiles");
    let asked = std::cell::RefCell::new(Vec::new());
    let mut bindings = Bindings::default();
    bindings.set_lazy_fields(
        "variables",
        Box::new(|name, _| {
            asked.borrow_mut().push(name.to_owned());
            Ok(Value::Int(2))
        }),
    );
    let value = program
        .evaluate(&bindings, &mut Budget::per_call())
        .expect("a value");
    assert_eq!(value.as_bool(), Some(true));
    assert_eq!(*asked.borrow(), ["a"]);
}

#[test]
fn costs_are_the_references() {
    let cost = |source: &str| {
        let program = Program::compile(source, &environment(), &[]).expect(source);
        let cost = program.cost();
        (cost.min, cost.max)
    };
    assert_eq!(cost("true"), (0, 0));
    assert_eq!(cost("self.spec.replicas > 1"), (4, 4));
    assert_eq!(cost("self.spec.name == 'abc'"), (4, 4));
    assert_eq!(cost("self.spec.names.all(n, n != '')"), (4, 24));
}
