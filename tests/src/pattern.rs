//! Bytes that both ends of a test can make for themselves and compare by their hash.

use std::sync::LazyLock;

use bytes::Bytes;

/// Length of the repeated block: a prime, so that bytes lost or doubled at a buffer's edge shift
/// everything after them.
const BLOCK: usize = 65_521;

static BLOCK_BYTES: LazyLock<Bytes> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..BLOCK).map(|i| ((i * 131 + 7) % 251) as u8).collect();
    Bytes::from(bytes)
});

/// The pattern's next piece from `offset` on: at most a block, at most what is left of `total`.
pub fn piece(offset: u64, total: u64) -> Bytes {
    let start = (offset % BLOCK as u64) as usize;
    let left = total.saturating_sub(offset).min(BLOCK as u64) as usize;
    let end = (start + left).min(BLOCK);
    BLOCK_BYTES.slice(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_total() {
        let total = 200_000;
        let mut offset = 0;
        while offset < total {
            let piece = piece(offset, total);
            assert!(!piece.is_empty());
            assert_eq!(piece[0], ((offset % BLOCK as u64 * 131 + 7) % 251) as u8);
            offset += piece.len() as u64;
        }
        assert_eq!(offset, total);
    }
}
