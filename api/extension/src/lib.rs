//! Kinds that are defined by objects: CustomResourceDefinitions and their structural
//! schemas. Pure: definitions and objects in, verdicts and objects out.
