//! Whether somebody can still hold what stands as held.

use shoal_core::{HostName, Lifecycle, View};

use crate::ranges::Held;
use crate::read::{Groups, called};
use crate::spec::GROUP;

/// Who can hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A slot of a group has it; the state of its host, or `None`: the host is deleted, and its machine may live.
    Slot(Option<Lifecycle>),
    /// No slot has it any more, and the host is there, in this state.
    Host(Lifecycle),
    /// The group cannot be understood, so nobody knows.
    Unknown,
    /// Nobody: there is no such slot, and the host is retired or deleted.
    Nobody,
}

impl Groups {
    /// Who can hold this.
    #[must_use]
    pub fn holder(&self, view: &View, held: &Held) -> Holder {
        if let Some(group) = self.groups.iter().find(|group| group.tag == held.group) {
            if let Some(member) = group.members.get(&held.slot) {
                return Holder::Slot(member.state);
            }
        } else if view.tag(&held.group).is_some_and(|tag| tag.document.raw(GROUP).is_some()) {
            return Holder::Unknown;
        }
        match state(view, &held.host) {
            None | Some(Lifecycle::Retired) => Holder::Nobody,
            Some(state) => Holder::Host(state),
        }
    }
}

/// The state of the host that had this name; `None`: it is deleted.
pub(crate) fn state(view: &View, host: &HostName) -> Option<Lifecycle> {
    view.host(&called(view, host.as_str())).map(|host| host.state)
}
