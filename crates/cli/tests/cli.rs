//! The built program as people and scripts use it: help, usage, exit codes, output, profiles, and a whole
//! gateway behind it.

mod cli {
    pub mod documents;
    pub mod gateway;
    pub mod help;
    pub mod program;
}
