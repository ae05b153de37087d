//! A hint to the processor that memory will be wanted soon.

/// Bytes of a cache line on the processors that this is tuned for.
pub const CACHE_LINE_SIZE: usize = 64;

/// Asks for the cache line that holds the first byte of `bytes`, without waiting for it. Nothing
/// happens on processors that have no such hint.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and faults at no address; the
        // pointer is that of a slice besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = bytes;
    }
}
