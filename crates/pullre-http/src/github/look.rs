//! What a token sees and may do, for whoever sets it up.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pullre::ports::ForgeError;
use serde::Deserialize;

use super::ask::{Answer, Page};
use super::parse::{malformed, pulls};
use super::{GitHub, Url};

/// The repository as this token sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// As GitHub calls it now.
    pub full_name: String,
    pub is_private: bool,
    /// A classic token's scopes; None for other kinds, which do not say.
    pub scopes: Option<Vec<String>>,
    /// What its account may do in the repository.
    pub permissions: Vec<String>,
    /// What an App's installation may do; None for a token, which does not say.
    pub granted: Option<BTreeMap<String, String>>,
    /// How much GitHub's clock is ahead of ours.
    pub ahead: Option<SignedDuration>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    private: bool,
    #[serde(default)]
    permissions: BTreeMap<String, bool>,
}

impl GitHub {
    /// Asks for the repository and for one pull request: an error says what the token lacks.
    pub fn look(&self) -> Result<Look, ForgeError> {
        let mut url = self.pulls_url.clone();
        let path = url.path().trim_end_matches("/pulls").to_owned();
        url.set_path(&path);
        let page = self.whole(&url)?;
        let now = Timestamp::now();
        let repository: Repository =
            serde_json::from_slice(&page.body).map_err(|e| malformed(format_args!("{e}")))?;
        let mut one = self.pulls_url.clone();
        one.set_query(Some("state=all&per_page=1"));
        pulls(&self.whole(&one)?.body, &self.full_name)?;
        let words = |scopes: &str| {
            let scopes = scopes.split(',').map(str::trim).filter(|scope| !scope.is_empty());
            scopes.map(str::to_owned).collect()
        };
        let permissions = repository.permissions.into_iter();
        Ok(Look {
            full_name: repository.full_name,
            is_private: repository.private,
            scopes: page.scopes.as_deref().map(words),
            permissions: permissions.filter(|(_, may)| *may).map(|(name, _)| name).collect(),
            granted: self.asker.granted(&self.memory)?,
            ahead: page.date.map(|date| date.duration_since(now)),
        })
    }

    fn whole(&self, url: &Url) -> Result<Page, ForgeError> {
        match self.asker.get(url, None, &self.memory)? {
            Answer::Page(page) => Ok(page),
            Answer::NotModified => Err(malformed("an unasked 304")),
            Answer::Absent => Err(ForgeError::NoRepository(self.full_name.clone())),
        }
    }
}
