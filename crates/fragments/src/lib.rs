//! Fragment-derived keys: evaluation, combination, sealed records.
