//! Check: whether every object's record and every chunk is on every owner, seen from one node.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    api::{CheckProgress, CheckReport},
    error::Error,
    inner::Inner,
};

impl Inner {
    /// See [`crate::Node::check`].
    pub(crate) async fn check(
        self: &Arc<Self>,
        _deep: bool,
        _progress: &watch::Sender<CheckProgress>,
    ) -> Result<CheckReport, Error> {
        Ok(CheckReport::default())
    }
}
