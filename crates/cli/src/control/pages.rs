//! A listing, page by page: while the caller looks at one page, the node looks for the next.

use super::{
    Client,
    message::{ListRequest, Page, Request},
};

/// See the file's header.
pub(crate) struct Pages {
    client: Client,
    request: ListRequest,
    /// The first page was asked for.
    begun: bool,
    /// There is no page that was asked for and did not come.
    over: bool,
}

impl Pages {
    /// What to list, from its `after`.
    pub(crate) fn new(client: Client, request: ListRequest) -> Self {
        Self { client, request, begun: false, over: false }
    }

    /// The next page; `None` after the last. After an error there is none.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Page>> {
        if self.over {
            return Ok(None);
        }
        self.over = true;
        if !self.begun {
            self.begun = true;
            self.client.send(&Request::List(self.request.clone())).await?;
        }
        let page = self.client.page().await?;
        if let Some(next) = &page.next {
            self.request.after = Some(next.clone());
            self.client.send(&Request::List(self.request.clone())).await?;
            self.over = false;
        }
        Ok(Some(page))
    }
}
