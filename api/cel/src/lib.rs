//! Expressions of the Common Expression Language as Kubernetes uses them: compiled and
//! type-checked once, evaluated under a cost budget. Pure.
