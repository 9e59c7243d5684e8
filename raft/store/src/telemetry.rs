//! What the store's metrics mean, in Prometheus' words.

/// Says it to whoever collects them: once, before the first report.
pub(crate) fn describe_metrics() {
    let gauges = [
        (
            "nautilus_store_index_bytes",
            "Memory of the index of keys, in bytes.",
        ),
        (
            "nautilus_store_index_keys",
            "Keys in the index, deleted ones until they are compacted.",
        ),
        (
            "nautilus_store_row_cache_bytes",
            "Memory of rows kept in clear for reads, in bytes.",
        ),
        (
            "nautilus_store_memtable_bytes",
            "Memory of rows that are not on disk yet, in bytes.",
        ),
        (
            "nautilus_store_block_cache_bytes",
            "Memory of sealed blocks of files, in bytes.",
        ),
        (
            "nautilus_store_table_index_bytes",
            "Memory of the indexes of files, in bytes.",
        ),
        (
            "nautilus_store_disk_bytes",
            "Bytes of the store's files, what was deleted included.",
        ),
        (
            "nautilus_store_disk_in_use_bytes",
            "Bytes of the store's files that are still of use.",
        ),
    ];
    for (name, help) in gauges {
        metrics::describe_gauge!(name, help);
    }
    metrics::describe_counter!(
        "nautilus_store_row_cache_hits_total",
        "Reads of a row that was in memory."
    );
    metrics::describe_counter!(
        "nautilus_store_row_cache_misses_total",
        "Reads of a row that had to be fetched from the engine."
    );
}
