//! The fragment holder daemon and the client that asks a quorum of holders.
