//! Whether the statements over the whole store use an index.
