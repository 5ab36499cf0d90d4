//! What a rule's text says about the hosts that it can hold for, so that a search asks an index and not everybody.
//!
//! Understood are, joined by `&&` and `||`: `field == literal`, `field in [literals]`, `<`, `<=`, `>`, `>=` with a literal
//! (numbers, texts, truths, `gib(n)`, `mib(n)`) on either side, and `field.startsWith("text")`. A field is a top-level one of
//! the document, also as `host["disk-size"]`, or `name`, `state`, `owner` or `environment`.
//!
//! What is narrowed to contains every host that the rule selects, and every one for which such a part cannot be evaluated
//! because the field holds something of another type. A host that lacks the field is outside.

use std::ops::Bound;
use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{Field, is_whole, read};
use crate::document::as_text;

/// A field's value as an index orders it: by kind, then by value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Literal {
    /// `true` or `false`.
    Truth(bool),
    /// A number. Large whole ones lose their last digits, and keep their order.
    Number(Number),
    /// A text.
    Text(Arc<str>),
    /// A list, a map, or nothing.
    Other,
}

/// A number that is in order with all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Both zeros are one number.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl Literal {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn number(number: f64) -> Self {
        Self::Number(Number(number))
    }

    /// The value of a document's field, from its JSON text.
    pub(crate) fn of(raw: &str) -> Self {
        match raw {
            "true" => Self::Truth(true),
            "false" => Self::Truth(false),
            _ => match as_text(raw) {
                Some(text) => Self::text(&text),
                None => raw.parse().map_or(Self::Other, Self::number),
            },
        }
    }

    /// Whether both are of one kind, so that they can be compared.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Where the hosts stand that a rule can hold for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Narrow {
    /// The field is one of these.
    OneOf(Field, Vec<Literal>),
    /// The field lies between these, of one kind; ends count as inside.
    Between(Field, Bound<Literal>, Bound<Literal>),
    /// The field is a text that starts so.
    Starts(Field, String),
    /// All of these hold: each alone is wide enough.
    All(Vec<Narrow>),
    /// One of these holds.
    Any(Vec<Narrow>),
}

impl Narrow {
    /// What the expression says; `None`: anybody may be meant.
    pub(crate) fn of(expr: &IdedExpr) -> Option<Self> {
        let Expr::Call(call) = &expr.expr else { return None };
        match call.func_name.as_str() {
            operators::LOGICAL_AND => {
                let parts: Vec<Self> = call.args.iter().filter_map(Self::of).collect();
                (!parts.is_empty()).then_some(Self::All(parts))
            }
            operators::LOGICAL_OR => call.args.iter().map(Self::of).collect::<Option<_>>().map(Self::Any),
            "startsWith" => {
                let [Expr::Literal(LiteralValue::String(start))] = [&call.args.first()?.expr] else {
                    return None;
                };
                Some(Self::Starts(field(call.target.as_deref()?)?, start.inner().to_owned()))
            }
            _ => Self::comparison(call),
        }
    }

    fn comparison(call: &CallExpr) -> Option<Self> {
        let [left, right] = &call.args[..] else { return None };
        if call.func_name == operators::IN {
            let Expr::List(list) = &right.expr else { return None };
            return Some(Self::OneOf(
                field(left)?,
                list.elements.iter().map(literal).collect::<Option<_>>()?,
            ));
        }
        let (of, than, turned) = match (field(left), field(right)) {
            (Some(of), None) => (of, literal(right)?, false),
            (None, Some(of)) => (of, literal(left)?, true),
            _ => return None,
        };
        // Ends count as inside: what is too much is evaluated and falls out.
        let (up, down) = (
            (Bound::Included(than.clone()), Bound::Unbounded),
            (Bound::Unbounded, Bound::Included(than.clone())),
        );
        let (from, to) = match (call.func_name.as_str(), turned) {
            (operators::EQUALS, _) => return Some(Self::OneOf(of, vec![than])),
            (operators::GREATER | operators::GREATER_EQUALS, false) => up,
            (operators::LESS | operators::LESS_EQUALS, true) => up,
            (operators::LESS | operators::LESS_EQUALS, false) => down,
            (operators::GREATER | operators::GREATER_EQUALS, true) => down,
            _ => return None,
        };
        Some(Self::Between(of, from, to))
    }
}

/// The field that the expression is, whole.
fn field(expr: &IdedExpr) -> Option<Field> {
    let field = read(&expr.expr, &[])??;
    is_whole(&expr.expr, &field).then_some(field)
}

/// The literal that the expression is.
fn literal(expr: &IdedExpr) -> Option<Literal> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(Literal::text(text.inner())),
        Expr::Literal(LiteralValue::Boolean(truth)) => Some(Literal::Truth(*truth.inner())),
        _ => number(expr).map(Literal::number),
    }
}

fn number(expr: &IdedExpr) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "the order is kept, and both sides are cut alike")]
    match &expr.expr {
        Expr::Literal(LiteralValue::Int(n)) => Some(*n.inner() as f64),
        Expr::Literal(LiteralValue::UInt(n)) => Some(*n.inner() as f64),
        Expr::Literal(LiteralValue::Double(n)) => Some(*n.inner()),
        Expr::Call(call) if call.target.is_none() => {
            let [of] = &call.args[..] else { return None };
            // As `gib` and `mib` themselves, which stop at the largest number.
            let most = i64::MAX as f64;
            match call.func_name.as_str() {
                operators::NEGATE => Some(-number(of)?),
                "gib" => Some((number(of)? * f64::from(1 << 30)).clamp(-most, most)),
                "mib" => Some((number(of)? * f64::from(1 << 20)).clamp(-most, most)),
                _ => None,
            }
        }
        _ => None,
    }
}
