//! `Clone` and `Debug` for what a target is handed, whether or not the agent itself has them: a derive would ask
//! for both, though only the agent's types are inside.

use std::fmt;

use crate::{Agent, Applied, Batch, Edit, Line, Observed};

macro_rules! plain {
    ($name:ident { $($field:ident),* }) => {
        impl<A: Agent> Clone for $name<A> {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone()),* }
            }
        }
        impl<A: Agent> fmt::Debug for $name<A> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &self.$field))*.finish()
            }
        }
    };
}

plain!(Observed { seen, complete });
plain!(Batch { changes, after, revision });
plain!(Edit { key, verb, from, to, memo, token, because });
plain!(Applied { each, facts });

impl<A: Agent> Clone for Line<A> {
    fn clone(&self) -> Self {
        match self {
            Self::Want(item) => Self::Want(item.clone()),
            Self::Keep(have) => Self::Keep(have.clone()),
        }
    }
}

impl<A: Agent> fmt::Debug for Line<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Want(item) => f.debug_tuple("Want").field(item).finish(),
            Self::Keep(have) => f.debug_tuple("Keep").field(have).finish(),
        }
    }
}
