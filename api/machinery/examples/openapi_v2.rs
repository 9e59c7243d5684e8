//! Writes the OpenAPI v2 document, in both forms, into the folder given: for
//! `schema/generate/openapi`, which reads them with the reference's libraries.

use std::fs;
use std::path::PathBuf;

use nautilus_machinery::openapi::{gnostic, v2};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: openapi_v2 FOLDER")?);
    let document = v2::document(nautilus_machinery::resource::built_in());
    fs::write(folder.join("openapi-v2.json"), document.to_string())?;
    fs::write(folder.join("openapi-v2.pb"), gnostic::document(&document)?)?;
    Ok(())
}
