//! What programs read of the kernel's `struct tcp_sock`, whose layout they know since load.

use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use core::ffi::c_void;

/// A socket that speaks TCP.
#[derive(Clone, Copy)]
pub struct Tcp(*const u8);

#[inline(always)]
pub fn tcp(sk: *mut c_void) -> Option<Tcp> {
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) }.cast::<u8>();
    if tcp.is_null() { None } else { Some(Tcp(tcp)) }
}

impl Tcp {
    /// A field of the size of `T`, at an offset that the user half sets. The verifier knows the structure's type and,
    /// as they are constants by then, the offsets: it takes the load for what it is, and no helper is needed.
    #[inline(always)]
    pub fn field<T: Copy>(self, offset: *const u32) -> T {
        unsafe { self.0.add(offset.read_volatile() as usize).cast::<T>().read_volatile() }
    }
}
