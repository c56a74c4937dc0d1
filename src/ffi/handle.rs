// SPDX-License-Identifier: Apache-2.0
//! What the opaque pointers of the C ABI point to.
//!
//! A stub with the kind of the handle and what it stands for. Closing a handle empties its stub; the stub itself is
//! kept for the life of the process (a few dozen bytes a handle), so that using or closing a handle again is an
//! error and never reads freed memory.

use super::status::Failure;
use crate::lock_order::{Mutex, MutexGuard, Rank};
use crate::types::BlobId;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Once;

/// The start of every stub, by which its kind is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    Settings = 0x4c53_5345_5454_494e,
    Datastore = 0x4c53_4441_5441_5354,
    Channel = 0x4c53_4348_414e_4e45,
    Snapshot = 0x4c53_534e_4150_5348,
    Cursor = 0x4c53_4355_5253_4f52,
    BlobPool = 0x4c53_424c_4f42_504f,
    Backup = 0x4c53_4241_434b_5550,
}

/// A type that is handed out as an opaque pointer.
pub(super) trait Handle: Sized {
    const KIND: Kind;
    /// The C name of the kind, for messages.
    const NAME: &'static str;
    /// What the handle stands for: [`Closable`], or plain content when the caller cannot close it.
    type Content;
    fn stub(&self) -> &Stub<Self::Content>;
    fn from_stub(stub: Stub<Self::Content>) -> Self;
}

#[repr(C)]
#[derive(Debug)]
pub(super) struct Stub<T> {
    kind: u64,
    /// See [`FORKS`].
    forks: u32,
    pub(super) content: T,
}

/// How many times this process and those before it were forked since the first handle was made. A handle with another
/// number was copied from a parent: its files, sockets and threads belong to that, and so do the locks that were held.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Counts from here on.
fn count_forks() {
    unsafe extern "C" fn forked() {
        FORKS.fetch_add(1, Relaxed);
    }
    static ONCE: Once = Once::new();
    // SAFETY: the function may run in a child, where it touches nothing but an atomic number.
    ONCE.call_once(|| _ = unsafe { libc::pthread_atfork(None, None, Some(forked)) });
}

/// Content that is gone when the handle was closed.
pub(super) type Closable<T> = Mutex<Option<T>>;

/// Content of a handle that is open.
pub(super) fn closable<T>(content: T) -> Closable<T> {
    Mutex::new(Rank::Handle, Some(content))
}

/// Addresses of all stubs: what is kept on purpose is no leak to a leak checker.
static KEPT: Mutex<Vec<usize>> = Mutex::new(Rank::Leaf, Vec::new());

/// Makes a handle that stays valid to look at for the life of the process.
pub(super) fn create<H: Handle>(content: H::Content) -> *mut H {
    count_forks();
    let stub = Stub { kind: H::KIND as u64, forks: FORKS.load(Relaxed), content };
    let handle = Box::into_raw(Box::new(H::from_stub(stub)));
    KEPT.lock().push(handle as usize);
    handle
}

/// Closed handles of a kind that comes with every transaction. The oldest are used again, so that the stubs of such a
/// kind do not grow for ever; a stale handle is recognised until [`RETIRED_MAX`] others were closed after it.
#[derive(Debug)]
pub(super) struct Retired(Mutex<VecDeque<usize>>);

/// Closed handles that are not used again yet; about six MiB.
const RETIRED_MAX: usize = 1 << 16;

impl Retired {
    pub(super) const fn new() -> Retired {
        Retired(Mutex::new(Rank::Leaf, VecDeque::new()))
    }

    /// As [`create`], with a retired handle when there are many.
    pub(super) fn create<H, T>(&self, content: T) -> *mut H
    where
        H: Handle<Content = Closable<T>>,
    {
        let mut retired = self.0.lock();
        let oldest = if retired.len() > RETIRED_MAX { retired.pop_front() } else { None };
        drop(retired);
        let Some(oldest) = oldest else {
            return create(closable(content));
        };
        let handle = oldest as *mut H;
        // SAFETY: `add` was given a handle of this kind, which is never freed.
        let stub = unsafe { &*handle }.stub();
        if stub.forks != FORKS.load(Relaxed) {
            return create(closable(content));
        }
        *stub.content.lock() = Some(content);
        handle
    }

    /// Takes a handle that was closed and is used by nobody.
    pub(super) fn add<H: Handle>(&self, handle: *mut H) {
        self.0.lock().push_back(handle as usize);
    }
}

/// The content of a handle, locked; the handle is open while the guard lives.
pub(super) struct Opened<'a, T>(MutexGuard<'a, Option<T>>);

impl<T> std::ops::Deref for Opened<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("an opened handle has content")
    }
}

impl<T> std::ops::DerefMut for Opened<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("an opened handle has content")
    }
}

/// Looks at the stub behind a pointer.
///
/// # Safety
/// `handle` is null or was returned by [`create`], for whichever kind.
#[inline]
pub(super) unsafe fn stub<'a, H: Handle + 'a>(handle: *const H) -> Result<&'a Stub<H::Content>, Failure> {
    if handle.is_null() {
        return Err(Failure::null(H::NAME));
    }
    // SAFETY: every stub begins with its kind and is never freed.
    let kind = unsafe { handle.cast::<u64>().read() };
    if kind != H::KIND as u64 {
        return Err(Failure::kind(H::NAME));
    }
    // SAFETY: the kind says that it is an `H`.
    let stub = unsafe { &*handle }.stub();
    match stub.forks == FORKS.load(Relaxed) {
        true => Ok(stub),
        false => Err(Failure::forked(H::NAME)),
    }
}

/// Opens a handle for the time of a call.
///
/// # Safety
/// As for [`stub`].
pub(super) unsafe fn open<'a, H, T: 'a>(handle: *const H) -> Result<Opened<'a, T>, Failure>
where
    H: Handle<Content = Closable<T>> + 'a,
{
    // SAFETY: the caller keeps the same promise.
    let guard = unsafe { stub(handle) }?.content.lock();
    match *guard {
        Some(_) => Ok(Opened(guard)),
        None => Err(Failure::handle(format!("the {} handle was closed", H::NAME))),
    }
}

/// Closes a handle and gives its content back; `*handle` becomes null. A null `*handle` is closed already.
///
/// # Safety
/// `handle` is null or points to a pointer for which the promise of [`stub`] holds.
pub(super) unsafe fn close<H, T>(handle: *mut *mut H) -> Result<Option<T>, Failure>
where
    H: Handle<Content = Closable<T>>,
{
    if handle.is_null() {
        return Err(Failure::argument(&format!("the pointer to the {} handle is null", H::NAME)));
    }
    // SAFETY: it points to a pointer.
    let handle = unsafe { &mut *handle };
    if handle.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let content = unsafe { stub(*handle) }?.content.lock().take();
    *handle = std::ptr::null_mut();
    match content {
        Some(content) => Ok(Some(content)),
        None => Err(Failure::handle(format!("the {} handle was closed before", H::NAME))),
    }
}

/// Stores the result of a call through an out-pointer that was checked.
///
/// # Safety
/// `out` is null or may be written.
pub(super) unsafe fn check_out<T>(out: *mut T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::argument("the pointer for the result is null"));
    }
    Ok(())
}

/// Bytes that the caller passed; a null pointer is allowed for none.
///
/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
#[inline]
pub(super) unsafe fn bytes<'a, T>(data: *const T, len: usize, what: &str) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::length(what, "is null but has length", len));
    }
    if len > isize::MAX as usize / std::mem::size_of::<T>() {
        return Err(Failure::length(what, "has the impossible length", len));
    }
    // SAFETY: the caller's promise; the length was checked.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// BLOB ids that the caller passed.
///
/// # Safety
/// As for [`bytes`].
#[inline]
pub(super) unsafe fn blob_ids<'a>(ids: *const u64, count: usize) -> Result<&'a [BlobId], Failure> {
    // SAFETY: the caller's promise; an id is laid out as its number.
    unsafe { bytes(ids.cast::<BlobId>(), count, "the list of BLOB ids") }
}

/// Makes a struct with a stub a handle.
macro_rules! handle {
    ($name:ident, $kind:ident, $content:ty) => {
        const _: () = assert!(std::mem::offset_of!($name, stub) == 0, "the kind stands first");

        impl super::handle::Handle for $name {
            const KIND: super::handle::Kind = super::handle::Kind::$kind;
            const NAME: &'static str = stringify!($name);
            type Content = $content;
            fn stub(&self) -> &super::handle::Stub<$content> {
                &self.stub
            }
            fn from_stub(stub: super::handle::Stub<$content>) -> Self {
                $name { stub }
            }
        }
    };
}
pub(super) use handle;
