//! Whether what clients read and wrote of one register could have happened one after the other, each at some moment between its
//! beginning and its end: stateright's tester says so.
//!
//! It tries orders until one fits. So that this ends, each register lives for a short window only, in which a client does a few
//! things, and stops when one of them was not answered.

use stateright::semantics::register::Register;
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

use crate::seen::Moment;

/// Whether the moments of one register, which held 0 at first, have an order that explains them.
///
/// # Errors
/// A thread that does two things at once: the client is wrong.
pub(crate) fn is_linear(moments: &[Moment]) -> Result<bool, String> {
    let mut tester = LinearizabilityTester::new(Register(0));
    for moment in moments {
        match moment.clone() {
            Moment::Begins(thread, op) => tester.on_invoke(thread, op)?,
            Moment::At(..) => continue,
            Moment::Ends(thread, ret) => tester.on_return(thread, ret)?,
        };
    }
    Ok(tester.is_consistent())
}

#[cfg(test)]
mod tests {
    use stateright::semantics::register::{RegisterOp, RegisterRet};

    use super::*;

    fn write(thread: u64, value: u64) -> [Moment; 2] {
        [Moment::Begins(thread, RegisterOp::Write(value)), Moment::Ends(thread, RegisterRet::WriteOk)]
    }

    fn read(thread: u64, value: u64) -> [Moment; 2] {
        [Moment::Begins(thread, RegisterOp::Read), Moment::Ends(thread, RegisterRet::ReadOk(value))]
    }

    #[test]
    fn what_happened_one_after_the_other_is_linear() {
        let all = [read(2, 0), write(1, 5), read(2, 5), write(2, 6), read(1, 6)].concat();
        assert_eq!(is_linear(&all), Ok(true));
    }

    #[test]
    fn a_read_of_what_was_before_is_not() {
        let all = [write(1, 5), write(1, 6), read(2, 5)].concat();
        assert_eq!(is_linear(&all), Ok(false));
    }

    #[test]
    fn two_reads_that_see_it_come_and_go_are_not() {
        let late = Moment::Begins(1, RegisterOp::Write(5));
        let all = [vec![late.clone()], read(2, 5).into(), read(3, 0).into()].concat();
        assert_eq!(is_linear(&all), Ok(false));
        // A write that was not answered may have happened at any time, or never.
        assert_eq!(is_linear(&[vec![late.clone()], read(2, 0).into(), read(3, 5).into()].concat()), Ok(true));
        assert_eq!(is_linear(&[vec![late], read(2, 0).into(), read(3, 0).into()].concat()), Ok(true));
    }

    #[test]
    fn a_client_that_does_two_things_at_once_is_told() {
        let begins = Moment::Begins(1, RegisterOp::Read);
        assert!(is_linear(&[begins.clone(), begins]).is_err());
    }
}
