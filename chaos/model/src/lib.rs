//! The restart protocol as a model that a checker walks.
