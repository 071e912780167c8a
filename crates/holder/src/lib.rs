//! The fragment holder daemon and the client that asks a quorum of holders.
//!
//! The holder daemon and the quorum client come with their own change; nothing of them is here yet.
