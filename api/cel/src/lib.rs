//! Expressions of the Common Expression Language as Kubernetes uses them: compiled and
//! type-checked once, evaluated under a cost budget. Pure.
//!
//! Knows nothing of clocks, networks, requests or where its values come from; who may do
//! what is asked through the port [`Authorizer`]. Parser, checker and evaluator are our
//! own: a checker needs positions, and a budget needs hooks, and no crate has both.
//!
//! Invariants
//! - A program that compiled holds no undeclared name and no call without an overload.
//! - Parsing, checking and evaluation are bounded: depth, size, cost and work have limits
//!   with names (see [`limits`]); what exceeds one ends with an error.
//! - Costs, estimated and actual, are the reference's, because clients' policies are
//!   accepted or refused by them.
//! - Nothing here panics on any input.
//!
//! ```
//! use nautilus_cel::{Bindings, Budget, Declaration, Environment, Program, Value};
//!
//! let mut environment = Environment::kubernetes();
//! environment.declare("self", Declaration::int());
//! let program = Program::compile("self > 1", &environment, &[nautilus_cel::Type::Bool])
//!     .expect("compiles");
//! let mut bindings = Bindings::default();
//! bindings.set("self", Value::Int(2));
//! let verdict = program.evaluate(&bindings, &mut Budget::per_call());
//! assert_eq!(verdict.expect("evaluates").as_bool(), Some(true));
//! ```

mod ast;
mod check;
mod cost;
mod declaration;
mod device;
mod environment;
mod error;
mod escape;
mod evaluate;
mod lexer;
mod library;
pub mod limits;
mod macros;
mod parser;
mod program;
mod types;
mod value;

pub use cost::{CostEstimate, SizeEstimate};
pub use declaration::{Declaration, Field, ObjectDeclaration, Shape};
pub use device::{DeviceSelector, DeviceValue, UnfitSelector};
pub use environment::Environment;
pub use error::{CompileError, EvalError};
pub use escape::{escape, is_root_field, unescape};
pub use evaluate::{Bindings, Budget, LazyFields};
pub use library::authorizer::{
    Authorizer, Check, Decision, Subject, authorizer_value, resource_check_value,
};
pub use library::patterns::compile as compile_pattern;
pub use library::url::is_url;
pub use program::Program;
pub use types::Type;
pub use value::{List, Map, Text, Value};
