// SPDX-License-Identifier: Apache-2.0
//! `limestone_datastore`.

use super::channel::limestone_channel;
use super::handle::{self, closable, handle, Closable, Stub};
use super::settings::limestone_settings;
use super::status::{guard, Failure};
use crate::datastore::{environment, Datastore, EpochEvent, PersistentCallback, Settings};
use crate::engine::Engine;
use crate::monitoring::settings::metrics_endpoint;
use crate::types::{Durability, Epoch};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;

/// Everything of the epoch is on this machine's disk.
pub const LIMESTONE_STORED: i32 = 1;
/// Everything of the epoch is on the replica's disk as well.
pub const LIMESTONE_PROPAGATED: i32 = 2;

/// A data store. Owned by the caller; ended by `limestone_datastore_destroy`. Any thread, any number at once;
/// `limestone_datastore_switch_epoch` is meant for one thread at a time.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_datastore {
    stub: Stub<Closable<Arc<Engine>>>,
}

handle!(limestone_datastore, Datastore, Closable<Arc<Engine>>);

/// Told when everything of `epoch` and of all before it has reached `state` (`LIMESTONE_STORED` or
/// `LIMESTONE_PROPAGATED`). Epochs of one state strictly increase and may skip. Runs on a thread of the library; with
/// `LIMESTONE_COMMIT=direct` in the environment on one that is inside `limestone_datastore_switch_epoch`,
/// `limestone_channel_end_session` or `…_abort_session`, or that hears from the replicas. May call back into the
/// library; must not throw or jump out.
#[allow(non_camel_case_types)]
pub type limestone_persistent_callback = Option<unsafe extern "C" fn(context: *mut c_void, epoch: u64, state: i32)>;

thread_local! {
    static HAD_WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Within a persistent callback: whether a session ended in any of the epochs that it reports for the first time; with
/// `LIMESTONE_PROPAGATED` it may also be true when one ended in a later epoch that is stored. Elsewhere false.
#[no_mangle]
pub extern "C" fn limestone_callback_had_writes() -> bool {
    HAD_WRITES.get()
}

/// A pointer of the caller that goes back to it.
pub(super) struct Context(pub *mut c_void);
// SAFETY: the library only hands the pointer back; its owner promised that any thread may get it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// Takes the data store out of its handle, so that no lock of the handle is held during a call.
pub(super) unsafe fn store(datastore: *const limestone_datastore) -> Result<Arc<Datastore>, Failure> {
    // SAFETY: the caller's promise.
    unsafe { engine(datastore) }.map(|engine| engine.store().clone())
}

/// The same with its replication.
pub(super) unsafe fn engine(datastore: *const limestone_datastore) -> Result<Arc<Engine>, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle::open(datastore) }.map(|engine| engine.clone())
}

/// Creates or opens the data directory: takes its lock, checks its version and migrates it. Reads no log. The settings
/// may be destroyed afterwards.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_open(
    settings: *const limestone_settings,
    out: *mut *mut limestone_datastore,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let given = handle::open(settings)?.clone();
        let location = given.location.ok_or_else(|| Failure::argument("no data directory was set"))?;
        let memory = match given.recovery_memory_bytes {
            0 => environment::recovery_memory_bytes()?,
            bytes => bytes,
        };
        let metrics_endpoint = metrics_endpoint(std::env::var_os).map_err(|e| Failure::argument(&e.to_string()))?;
        let settings = Settings::new(location)
            .recovery_threads(given.recovery_threads)
            .recovery_memory_bytes(memory)
            .commit(environment::commit(std::env::var_os)?)
            .self_compaction(environment::self_compaction(std::env::var_os)?)
            .compaction_memory_bytes(environment::compaction_memory_bytes(std::env::var_os)?)
            .instance_id(given.instance_id)
            .db_name(given.db_name);
        let scrubbing = environment::scrubbing(std::env::var_os)?;
        let engine = Engine::open(settings, given.replication)?.metrics_endpoint(metrics_endpoint).scrubbing(scrubbing);
        *out = handle::create(closable(Arc::new(engine)));
        Ok(())
    })
}

/// Recovers what was acknowledged and starts the epochs. Once, and again after each shutdown: then the directory is
/// opened anew, and the channels and callbacks stay. `LIMESTONE_ERR_CORRUPTED` means that acknowledged data is damaged
/// and that no file was changed. On the directory of a replica it takes over. With replication it begins to connect to
/// the replica and does not wait for it.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_ready(datastore: *mut limestone_datastore) -> i32 {
    guard(|| unsafe { Ok(engine(datastore)?.ready().map(drop)?) })
}

/// Ends the data store and gives the lock of the directory back; open sessions are left without an end. The handle
/// stays valid. Calling it again does nothing. With replication, a connected replica first gets the time that is set to
/// confirm what is stored; what it does not confirm is said in the log.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_shutdown(datastore: *mut limestone_datastore) -> i32 {
    guard(|| unsafe {
        engine(datastore)?.shutdown();
        Ok(())
    })
}

/// Shuts the data store down when that was not done, and sets `*datastore` to null. Its channels end with it;
/// snapshots and cursors stay valid. A null `*datastore` is no error.
///
/// # Safety
/// `datastore` must be null or point to a handle or null.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_destroy(datastore: *mut *mut limestone_datastore) -> i32 {
    guard(|| unsafe {
        if let Some(engine) = handle::close(datastore)? {
            engine.shutdown();
            let store = engine.store();
            store.set_persistent_callback(None);
            store.set_notify_callback(None);
            store.set_snapshot_callback(None);
            store.set_event_callback(None);
        }
        Ok(())
    })
}

pub(super) unsafe fn epoch_of(datastore: *const limestone_datastore, get: impl Fn(&Datastore) -> Epoch) -> u64 {
    let mut epoch = 0;
    guard(|| unsafe {
        // SAFETY: the caller's promise.
        epoch = get(&*store(datastore)?).0;
        Ok(())
    });
    epoch
}

/// The largest durable epoch; after `limestone_datastore_ready`, the largest that ever left a trace. 0 for an invalid
/// handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_last_epoch(datastore: *const limestone_datastore) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { epoch_of(datastore, Datastore::last_epoch) }
}

/// The current epoch. 0 for an invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_switched_epoch(datastore: *const limestone_datastore) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { epoch_of(datastore, Datastore::switched_epoch) }
}

/// The largest epoch in the epoch file; 0 before `limestone_datastore_ready` and for an invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_recorded_epoch(datastore: *const limestone_datastore) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { epoch_of(datastore, Datastore::recorded_epoch) }
}

/// Makes `epoch` the current one. Earlier epochs whose sessions have all ended become durable and are reported before
/// this returns, or on the thread that is busy with an earlier one. A value that is not larger than the current one
/// changes nothing but a warning in the log.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_switch_epoch(datastore: *mut limestone_datastore, epoch: u64) -> i32 {
    guard(|| unsafe {
        if epoch == u64::MAX {
            return Err(Failure::argument("the largest epoch is 2^64 - 2"));
        }
        Ok(store(datastore)?.switch_epoch(Epoch(epoch))?)
    })
}

/// Sets the callback for durable epochs, in place of an earlier one; null removes it. When this returns, no call of the
/// former one is running or will start, unless it is called from within it. `context` is handed back on any thread.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; the callback must be callable with `context` until it is
/// removed or the data store is destroyed.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_set_persistent_callback(
    datastore: *mut limestone_datastore,
    callback: limestone_persistent_callback,
    context: *mut c_void,
) -> i32 {
    guard(|| unsafe {
        let store = store(datastore)?;
        let context = Context(context);
        let callback = callback.map(|callback| -> PersistentCallback {
            Arc::new(move |event: EpochEvent| {
                let context = &context;
                let state = match event.state {
                    Durability::Stored => LIMESTONE_STORED,
                    Durability::Propagated => LIMESTONE_PROPAGATED,
                };
                let outer = HAD_WRITES.replace(event.had_writes);
                // SAFETY: the owner of the callback promised that it can be called.
                callback(context.0, event.epoch.0, state);
                HAD_WRITES.set(outer);
            })
        });
        store.set_persistent_callback(callback);
        Ok(())
    })
}

/// Writes a durable-epoch record although nothing asks for it. `LIMESTONE_ERR_WRONG_STATE` when the epoch has not
/// ended.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_record_epoch(datastore: *mut limestone_datastore, epoch: u64) -> i32 {
    guard(|| unsafe { Ok(store(datastore)?.record_epoch(Epoch(epoch))?) })
}

/// Gives every log file a rotated name; rotated files hold ended sessions only. Waits for nobody but a running sync.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_rotate(datastore: *mut limestone_datastore) -> i32 {
    guard(|| unsafe { Ok(store(datastore)?.rotate()?) })
}

/// Makes the next log channel. The data store owns it; it ends with the data store, and there is no other way to end
/// it. No file is made before its first session.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_create_channel(
    datastore: *mut limestone_datastore,
    out: *mut *mut limestone_channel,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        *out = handle::create(engine(datastore)?.create_channel()?);
        Ok(())
    })
}
