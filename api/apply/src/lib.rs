//! Server-side apply: who owns which field of an object, and what a merge of one
//! manager's intent does to it (KEP-555). Pure: objects in, objects out.
