//! A stand-in for a full node of Sui: both faces over a chain in memory, with faults.
