//! As much of protoc as build scripts ask for: descriptors of files, by protox.
//!
//! `protoc --include_imports --include_source_info -o OUT -I DIR... FILE...`

use std::path::PathBuf;
use std::process::ExitCode;

use protox::Compiler;

/// The version that build scripts are told.
const VERSION: &str = "libprotoc 28.0";

#[derive(Default)]
struct Asked {
    out: Option<PathBuf>,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("{VERSION}");
        return ExitCode::SUCCESS;
    }
    match compile(asked(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn asked(arguments: Vec<String>) -> Asked {
    let mut asked = Asked::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-o" => asked.out = arguments.next().map(PathBuf::from),
            "-I" => asked.folders.extend(arguments.next().map(PathBuf::from)),
            flag if flag.starts_with("-I") => asked.folders.push(PathBuf::from(&flag[2..])),
            flag if flag.starts_with('-') => {}
            file => asked.files.push(PathBuf::from(file)),
        }
    }
    asked
}

fn compile(asked: Asked) -> Result<(), Box<dyn std::error::Error>> {
    let out = asked.out.ok_or("say where to write with -o")?;
    let mut compiler = Compiler::new(&asked.folders)?;
    compiler.include_imports(true).include_source_info(true);
    for file in &asked.files {
        compiler.open_file(file)?;
    }
    std::fs::write(out, compiler.encode_file_descriptor_set())?;
    Ok(())
}
