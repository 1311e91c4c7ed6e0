//! What every part of one endpoint shares: its limits, its TLS, its tasks, its counters, and whether it is
//! stopping. Owns nothing that changes except these.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{limits::Limits, stats::Counters, tasks::Tasks, tls::Tls};

/// See the file's header.
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) tls: Tls,
    pub(crate) tasks: Tasks,
    pub(crate) counters: Arc<Counters>,
    stopping: watch::Sender<bool>,
}

impl Context {
    pub(crate) fn new(limits: Limits, tls: Tls) -> Self {
        Self {
            limits,
            tls,
            tasks: Tasks::default(),
            counters: Arc::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// From now on nothing new begins.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns when [`Context::stop`] was called.
    pub(crate) async fn stopping(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that the sender is gone, and `self` holds it.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
