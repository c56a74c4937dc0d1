// SPDX-License-Identifier: Apache-2.0
//! Epoch tags.

use super::datastore::{limestone_datastore, store};
use super::handle;
use super::status::{guard, Failure, LIMESTONE_ERR_NOT_FOUND};
use crate::datastore::EpochTag;
use std::ffi::{c_char, c_void};

/// A name for an epoch. The texts are UTF-8, not terminated, and valid during the call that shows the tag.
#[allow(non_camel_case_types)]
#[derive(Debug)]
#[repr(C)]
pub struct limestone_tag {
    pub name: *const c_char,
    pub name_len: usize,
    pub comments: *const c_char,
    pub comments_len: usize,
    /// The last durable epoch when the tag was registered.
    pub epoch: u64,
    /// When it was registered, in nanoseconds since 1970.
    pub registered_unix_ns: i64,
}

/// Is shown one tag.
#[allow(non_camel_case_types)]
pub type limestone_tag_callback = Option<unsafe extern "C" fn(context: *mut c_void, tag: *const limestone_tag)>;

/// Text that the caller passed.
///
/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
pub(super) unsafe fn text<'a>(data: *const c_char, len: usize, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { handle::bytes(data.cast::<u8>(), len, what) }?;
    std::str::from_utf8(bytes).map_err(|e| Failure::argument(&format!("{what} is not UTF-8: {e}")))
}

fn show(tag: &EpochTag, callback: unsafe extern "C" fn(*mut c_void, *const limestone_tag), context: *mut c_void) {
    let shown = limestone_tag {
        name: tag.name.as_ptr().cast(),
        name_len: tag.name.len(),
        comments: tag.comments.as_ptr().cast(),
        comments_len: tag.comments.len(),
        epoch: tag.epoch.0,
        registered_unix_ns: tag.registered_unix_ns,
    };
    // SAFETY: the owner of the callback promised that it can be called.
    unsafe { callback(context, &raw const shown) };
}

/// Gives the last durable epoch a name, with free text. The tag is on the disk when this returns and outlives restarts.
/// A name that is there already stays as it is, and the call succeeds. Both texts must be UTF-8. Before
/// `limestone_datastore_shutdown` only; a failure leaves the data store as it was.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; the texts must have the given lengths.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_register_tag(
    datastore: *mut limestone_datastore,
    name: *const c_char,
    name_len: usize,
    comments: *const c_char,
    comments_len: usize,
) -> i32 {
    guard(|| unsafe {
        // SAFETY (here and below): the caller's promise above.
        let (name, comments) = (text(name, name_len, "the name")?, text(comments, comments_len, "the comment")?);
        Ok(store(datastore)?.register_tag(name, comments).map(drop)?)
    })
}

/// Removes a tag; it is gone from the disk when this returns. A name that is not there is no error.
///
/// # Safety
/// As for `limestone_datastore_register_tag`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_unregister_tag(
    datastore: *mut limestone_datastore,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    guard(|| unsafe { Ok(store(datastore)?.unregister_tag(text(name, name_len, "the name")?).map(drop)?) })
}

/// Shows the tag with this name to `callback`, before it returns. `LIMESTONE_ERR_NOT_FOUND` when there is none.
///
/// # Safety
/// As for `limestone_datastore_register_tag`; `callback` must be callable with `context`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_find_tag(
    datastore: *const limestone_datastore,
    name: *const c_char,
    name_len: usize,
    callback: limestone_tag_callback,
    context: *mut c_void,
) -> i32 {
    guard(|| unsafe {
        let callback = callback.ok_or_else(|| Failure::argument("the callback is null"))?;
        let name = text(name, name_len, "the name")?;
        let Some(tag) = store(datastore)?.find_tag(name) else {
            let message = format!("there is no epoch tag with the name {name:?}");
            return Err(Failure { status: LIMESTONE_ERR_NOT_FOUND, errno: 0, message });
        };
        show(&tag, callback, context);
        Ok(())
    })
}

/// Shows every tag to `callback`, in the order of their names, before it returns.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `callback` must be callable with `context`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_list_tags(
    datastore: *const limestone_datastore,
    callback: limestone_tag_callback,
    context: *mut c_void,
) -> i32 {
    guard(|| unsafe {
        let callback = callback.ok_or_else(|| Failure::argument("the callback is null"))?;
        for tag in store(datastore)?.tags() {
            show(&tag, callback, context);
        }
        Ok(())
    })
}
