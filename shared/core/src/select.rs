//! Rules: CEL expressions over one host, for membership and for searching.
//!
//! A rule sees the host document's top-level fields as variables, and these names, which win over fields:
//! `name`, `state`, `owner`, `environment`, `facts` (a map from namespace to what it reports) and `host` (the
//! whole document, for fields whose names are not identifiers: `host["disk-size"]`). `gib(n)` and `mib(n)` are
//! octets. It never sees memberships, so rules cannot go in circles.
//!
//! Guarantees: a rule that names a field the host does not have does not select it, unless the rule decides
//! without that field (`a == 1 || b == 2`). A rule that fails otherwise (a text is compared with a number) says
//! nothing about the host: that is neither yes nor no ([`Rule::judge`]). Evaluation is bounded: a loop in a loop at most,
//! and only over as many elements as keep the steps under [`MAX_STEPS`]; beyond that it has failed. What a rule reads is
//! known from its text ([`Rule::reads`]), so that a change asks only those rules that could answer otherwise.

mod narrow;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, operators};
use cel::common::types::CelInt;
use cel::common::value::CowVal;
use cel::context::{Context, VariableResolver};
use cel::{Env, ExecutionError, Program, Value};

use crate::document::as_text;
use crate::view::{Fact, Host};
use crate::{Lifecycle, MAX_RULE};
pub(crate) use narrow::{Literal, Narrow};

/// The most steps that the loops of one evaluation may take.
pub const MAX_STEPS: u64 = 1_000_000;

/// The deepest that the parts of a rule may stand in each other; a row of `&&` or `||` counts as little.
pub const MAX_DEPTH: u32 = 32;

const TOO_DEEP: &str = "its parts stand more than 32 deep in each other";

/// The stack on which rules are read. The parser goes deeper with every bracket and operator, and [`MAX_RULE`] octets hold
/// thousands; what it does not use is not even taken from the system.
const STACK: usize = if cfg!(debug_assertions) { 192 << 20 } else { 64 << 20 };

/// What a rule may read of a host. A document's field stands under its own name; what is not a field starts
/// with `@`: `@name`, `@state`, `@owner`, `@environment`, `@facts`, `@facts.<namespace>`, `@host`.
pub(crate) type Field = Arc<str>;

/// The whole document.
pub(crate) const WHOLE: &str = "@host";
/// All facts.
pub(crate) const ALL_FACTS: &str = "@facts";

/// A rule that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the rule {rule:?} does not compile: column {column}: {why}\n  {rule}\n  {caret:>column$}",
    caret = "^"
)]
pub struct BadRule {
    /// Its text.
    pub rule: String,
    /// Where, from 1, in characters.
    pub column: usize,
    /// What was expected.
    pub why: String,
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    text: Arc<str>,
    program: Program,
    reads: BTreeSet<Field>,
    needs: Option<(Field, Vec<String>)>,
    narrow: Option<Narrow>,
    depth: u32,
}

impl Rule {
    /// Compiles the expression (what follows `select:`).
    ///
    /// # Errors
    /// [`BadRule`] with the place.
    pub fn compile(text: &str) -> Result<Self, BadRule> {
        // Also where what was read is dropped again.
        stacker::grow(STACK, || Self::compile_here(text))
    }

    fn compile_here(text: &str) -> Result<Self, BadRule> {
        let bad = |column, why: &str| BadRule { rule: text.to_owned(), column, why: why.to_owned() };
        if text.len() > MAX_RULE {
            return Err(bad(1, "it has more than 4096 characters"));
        }
        let program = ENV.compile(text).map_err(|errors| {
            errors.errors.first().map_or_else(
                || bad(1, "it is not an expression"),
                // The rest lists every token of the grammar.
                |e| {
                    if e.msg.contains("Recursion limit") {
                        return bad(1, TOO_DEEP);
                    }
                    let column = usize::try_from(e.pos.1).unwrap_or(1).max(1);
                    if e.msg.contains("token recognition error at: '=") {
                        return bad(column, "there is no `=`: write `==` to compare");
                    }
                    let why = e
                        .msg
                        .split(" expecting ")
                        .next()
                        .unwrap_or_default()
                        .replace("mismatched input '<EOF>'", "it ends too early");
                    bad(column, &why)
                },
            )
        })?;
        for call in program.references().functions() {
            if !call.starts_with(['_', '@', '!', '-']) && !FUNCTIONS.contains(&call) {
                let column = text.find(call).map_or(1, |at| at + 1);
                return Err(bad(column, &format!("there is no function {call}()")));
            }
        }
        let mut reads = Reads::default();
        reads.expr(program.expression(), &mut Vec::new(), 0);
        if reads.nested > MAX_DEPTH {
            return Err(bad(1, TOO_DEEP));
        }
        if reads.depth > 2 {
            return Err(bad(1, "loops nest at most two deep"));
        }
        let (needs, narrow) = (needs(program.expression()), Narrow::of(program.expression()));
        Ok(Self { text: text.into(), reads: reads.fields, depth: reads.depth, needs, narrow, program })
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it reads of a host: names of document fields, and `@…` for what is not a field.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        self.reads.iter().map(|f| &**f)
    }

    /// A field, and the only literals of it with which the rule can hold.
    pub(crate) fn needs(&self) -> Option<(&Field, &[String])> {
        self.needs.as_ref().map(|(field, values)| (field, &**values))
    }

    /// Where the hosts stand that it can hold for; `None`: anywhere.
    pub(crate) fn narrow(&self) -> Option<&Narrow> {
        self.narrow.as_ref()
    }

    /// At most so many steps one evaluation takes.
    pub(crate) fn cost(&self, subject: &Subject<'_>) -> u64 {
        if self.depth == 0 { 1 } else { self.steps(subject) }
    }

    /// Whether the rule certainly selects the host.
    #[must_use]
    pub fn selects(&self, subject: &Subject<'_>) -> bool {
        self.judge(subject) == Ok(true)
    }

    /// Whether the rule selects the host. Costs a few µs and what it reads.
    ///
    /// # Errors
    /// Why it cannot be evaluated for this host: whether it selects it is not known.
    pub fn judge(&self, subject: &Subject<'_>) -> Result<bool, String> {
        let judged = if self.depth > 0 && self.steps(subject) > MAX_STEPS {
            Err(format!("its loops could take more than {MAX_STEPS} steps"))
        } else {
            let mut context = Context::with_env(Arc::clone(&ENV));
            context.set_variable_resolver(subject);
            match self.program.execute(&context) {
                Ok(Value::Bool(answer)) => Ok(answer),
                Ok(_) => Err("it is neither true nor false".to_owned()),
                Err(
                    ExecutionError::UndeclaredReference(_)
                    | ExecutionError::NoSuchKey(_)
                    | ExecutionError::IndexOutOfBounds(_),
                ) => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        };
        // Whatever else fails: without the literal that it needs it does not hold.
        judged.or_else(|why| if self.could_hold(subject) { Err(why) } else { Ok(false) })
    }

    /// Whether the host has a literal that the rule needs, if it needs one.
    pub(crate) fn could_hold(&self, subject: &Subject<'_>) -> bool {
        self.needs.as_ref().is_none_or(|(field, literals)| {
            subject.literal(field).is_some_and(|have| literals.iter().any(|l| *l == have))
        })
    }

    /// An upper bound: no list or map that a rule can build of a host is longer than the host's commas and the rule's
    /// own text together.
    fn steps(&self, subject: &Subject<'_>) -> u64 {
        let longest = (subject.commas() + self.text.len()) as u64;
        longest.saturating_pow(self.depth)
    }
}

/// A host as rules see it. Making one scans the document once.
#[derive(Debug)]
pub struct Subject<'a> {
    host: &'a Host,
    facts: &'a [Fact],
    fields: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Subject<'a> {
    /// The host with what is reported about it.
    #[must_use]
    pub fn new(host: &'a Host, facts: &'a [Fact]) -> Self {
        Self { host, facts, fields: host.document.fields() }
    }

    fn raw(&self, field: &str) -> Option<&'a str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, raw)| *raw)
    }

    /// The literal that a field holds, for [`Rule::needs`].
    pub(crate) fn literal(&self, field: &str) -> Option<Cow<'_, str>> {
        match field {
            "@name" => Some(self.host.name.as_str().into()),
            "@state" => Some(self.host.state.as_str().into()),
            "@owner" => self.host.owner.as_deref().map(Into::into),
            "@environment" => self.host.environment.as_deref().map(Into::into),
            _ => as_text(self.raw(field)?),
        }
    }

    /// The value by which an index finds the host; `None`: it has no such field.
    pub(crate) fn indexed(&self, field: &str) -> Option<Literal> {
        match field {
            "@name" | "@state" | "@owner" | "@environment" => {
                self.literal(field).map(|text| Literal::text(&text))
            }
            _ => self.raw(field).map(Literal::of),
        }
    }

    fn commas(&self) -> usize {
        let count = |text: &str| text.bytes().filter(|b| *b == b',').count() + 1;
        count(self.host.document.as_str())
            + self.facts.iter().map(|f| count(f.document.as_str())).sum::<usize>()
    }

    fn value(&self, variable: &str) -> Option<Value> {
        let text = |text: &str| Value::from(text.to_owned());
        match variable {
            "name" => Some(text(self.host.name.as_str())),
            "state" => Some(text(Lifecycle::as_str(self.host.state))),
            "owner" => self.host.owner.as_deref().map(text),
            "environment" => self.host.environment.as_deref().map(text),
            "host" => json(self.host.document.as_str()),
            "facts" => {
                let all: HashMap<String, Value> = self
                    .facts
                    .iter()
                    .filter_map(|f| Some((f.namespace.to_string(), json(f.document.as_str())?)))
                    .collect();
                Some(all.into())
            }
            // `a.b` is field `b` of `a`, never a field whose name has a dot: reads are known by first names.
            _ if variable.contains('.') => None,
            _ => json(self.raw(variable)?),
        }
    }
}

impl VariableResolver for Subject<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        self.value(variable)?.try_into().ok().map(CowVal::Owned)
    }
}

fn json(raw: &str) -> Option<Value> {
    if let Some(text) = as_text(raw) {
        return Some(Value::from(text.into_owned()));
    }
    cel::to_value(serde_json::from_str::<serde_json::Value>(raw).ok()?).ok()
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    // Two names that the standard library does not have: declaring them cannot clash.
    let _ = cel::add_overload!(env, fn gib: (CelInt) -> CelInt);
    let _ = cel::add_overload!(env, fn mib: (CelInt) -> CelInt);
    Arc::new(env)
});

fn gib(n: &CelInt) -> CelInt {
    n.inner().saturating_mul(1 << 30).into()
}

fn mib(n: &CelInt) -> CelInt {
    n.inner().saturating_mul(1 << 20).into()
}

/// What a rule may call beside operators and the loops `all`, `exists`, `exists_one`, `filter` and `map`.
const FUNCTIONS: [&str; 13] = [
    "gib",
    "mib",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "dyn",
    "type",
];

#[derive(Default)]
struct Reads {
    fields: BTreeSet<Field>,
    /// Loops in loops.
    depth: u32,
    /// Parts in parts: the deepest, and here.
    nested: u32,
    here: u32,
}

impl Reads {
    fn expr<'e>(&mut self, expr: &'e IdedExpr, bound: &mut Vec<&'e str>, depth: u32) {
        self.here += 1;
        self.nested = self.nested.max(self.here);
        self.part(expr, bound, depth);
        self.here -= 1;
    }

    fn part<'e>(&mut self, expr: &'e IdedExpr, bound: &mut Vec<&'e str>, depth: u32) {
        self.depth = self.depth.max(depth);
        if let Some(field) = read(&expr.expr, bound) {
            self.fields.extend(field);
            return;
        }
        match &expr.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select(select) => self.expr(&select.operand, bound, depth),
            Expr::Call(call) => {
                call.target.iter().for_each(|t| self.expr(t, bound, depth));
                call.args.iter().for_each(|a| self.expr(a, bound, depth));
            }
            Expr::List(list) => list.elements.iter().for_each(|e| self.expr(e, bound, depth)),
            Expr::Map(map) => map.entries.iter().for_each(|e| self.entry(e, bound, depth)),
            Expr::Struct(it) => it.entries.iter().for_each(|e| self.entry(e, bound, depth)),
            Expr::Comprehension(c) => {
                self.expr(&c.iter_range, bound, depth);
                self.expr(&c.accu_init, bound, depth);
                let outside = bound.len();
                bound.extend([c.iter_var.as_str(), c.accu_var.as_str()]);
                bound.extend(c.iter_var2.as_deref());
                for part in [&c.loop_cond, &c.loop_step, &c.result] {
                    self.expr(part, bound, depth + 1);
                }
                bound.truncate(outside);
            }
        }
    }

    fn entry<'e>(&mut self, entry: &'e IdedEntryExpr, bound: &mut Vec<&'e str>, depth: u32) {
        match &entry.expr {
            EntryExpr::StructField(field) => self.expr(&field.value, bound, depth),
            EntryExpr::MapEntry(pair) => {
                self.expr(&pair.key, bound, depth);
                self.expr(&pair.value, bound, depth);
            }
        }
    }
}

/// What an expression reads directly: nothing for a bound variable, `None` for what is no reference.
fn read(expr: &Expr, bound: &[&str]) -> Option<Option<Field>> {
    let (base, field) = match expr {
        Expr::Ident(name) => (name.as_str(), None),
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) => (name.as_str(), Some(select.field.as_str())),
            _ => return None,
        },
        Expr::Call(call) if call.func_name == operators::INDEX && call.target.is_none() => {
            match &call.args[..] {
                [of, at] => match (&of.expr, &at.expr) {
                    (Expr::Ident(name), Expr::Literal(LiteralValue::String(at))) => {
                        (name.as_str(), Some(at.inner()))
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
        _ => return None,
    };
    // An absolute name (`.site`) is looked for outside of all variables.
    let named = base.trim_start_matches('.');
    if named == base && bound.contains(&base) {
        return Some(None);
    }
    let base = named;
    Some(Some(match (base, field) {
        ("name" | "state" | "owner" | "environment", _) => format!("@{base}").into(),
        ("host", Some(field)) => field.into(),
        ("host", None) => WHOLE.into(),
        ("facts", Some(namespace)) => format!("{ALL_FACTS}.{namespace}").into(),
        ("facts", None) => ALL_FACTS.into(),
        (field, _) => field.into(),
    }))
}

/// A field that must be one of some texts for the expression to hold: `field == "text"` or `field in ["text", …]`
/// among the parts that `&&` joins. Of several, a document field before what hosts share widely.
fn needs(expr: &IdedExpr) -> Option<(Field, Vec<String>)> {
    let Expr::Call(call) = &expr.expr else { return None };
    let [left, right] = &call.args[..] else { return None };
    if call.func_name == operators::LOGICAL_AND {
        let (a, b) = (needs(left), needs(right));
        let wide = |n: &(Field, Vec<String>)| n.0.starts_with('@') && &*n.0 != "@name";
        return match (a, b) {
            (Some(a), Some(b)) => Some(if wide(&a) && !wide(&b) { b } else { a }),
            (a, b) => a.or(b),
        };
    }
    let text = |e: &IdedExpr| match &e.expr {
        Expr::Literal(LiteralValue::String(s)) => Some(s.inner().to_owned()),
        _ => None,
    };
    let plain = |e: &IdedExpr| match read(&e.expr, &[])?? {
        // `owner.x` and `site.x` also read `@owner` and `site`, but are something else.
        field if is_whole(&e.expr, &field) => Some(field),
        _ => None,
    };
    if call.func_name == operators::EQUALS {
        let (field, literal) = text(right).map(|l| (left, l)).or_else(|| text(left).map(|l| (right, l)))?;
        return Some((plain(field)?, vec![literal]));
    }
    if call.func_name == operators::IN {
        let Expr::List(list) = &right.expr else { return None };
        return Some((plain(left)?, list.elements.iter().map(text).collect::<Option<_>>()?));
    }
    None
}

/// Whether the expression is that field itself and not something within it.
fn is_whole(expr: &Expr, field: &str) -> bool {
    match expr {
        Expr::Ident(_) => field != WHOLE && !field.starts_with(ALL_FACTS),
        Expr::Select(s) => !s.test && matches!(&s.operand.expr, Expr::Ident(base) if base == "host"),
        Expr::Call(c) => matches!(c.args.first().map(|a| &a.expr), Some(Expr::Ident(base)) if base == "host"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, HostId, Revision};

    fn host(json: &str) -> Host {
        Host {
            name: "web1.example.com".parse().unwrap(),
            id: HostId("1".into()),
            state: Lifecycle::Active,
            owner: Some("ann".into()),
            environment: None,
            expires: None,
            revision: Revision(1),
            document: Document::parse(json).unwrap(),
        }
    }

    fn selects(rule: &str, json: &str) -> bool {
        let fact = Fact {
            namespace: "vm".parse().unwrap(),
            document: Document::parse(r#"{"ip":"192.0.2.1"}"#).unwrap(),
            revision: Revision(1),
        };
        Rule::compile(rule).unwrap().selects(&Subject::new(&host(json), &[fact]))
    }

    #[test]
    fn rules_see_fields_envelope_and_facts() {
        let json =
            r#"{"site":"rdu3","mem":17179869184,"roles":["web","db"],"disk-size":10,"a":{"b":1.5},"a.b":9}"#;
        for (rule, expected) in [
            ("site == 'rdu3'", true),
            ("site == 'rdu3' && mem >= gib(16)", true),
            ("mem > gib(16)", false),
            ("mem == mib(16384)", true),
            ("'web' in roles", true),
            ("roles.exists(r, r.startsWith('d'))", true),
            ("roles.all(r, r == 'web')", false),
            ("host['disk-size'] == 10", true),
            ("a.b == 1.5", true),
            ("name.endsWith('.example.com') && state == 'active' && owner == 'ann'", true),
            ("environment == 'prod'", false),
            ("environment != 'prod'", false),
            ("missing == 'x'", false),
            ("missing != 'x'", false),
            ("!(missing == 'x')", false),
            ("missing == 'x' || site == 'rdu3'", true),
            ("has(host.missing)", false),
            ("has(host.site)", true),
            ("facts.vm.ip == '192.0.2.1'", true),
            ("has(facts.lb)", false),
            ("mem > 'x' && site == 'iad2'", false),
            ("site in ['rdu3', 'iad2']", true),
        ] {
            assert_eq!(selects(rule, json), expected, "{rule}");
        }
    }

    #[test]
    fn what_a_rule_reads_is_known() {
        let reads = |rule: &str| Rule::compile(rule).unwrap().reads().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(reads("site == 'x' && cpus > 4"), ["cpus", "site"]);
        assert_eq!(reads("roles.exists(r, r == site)"), ["roles", "site"]);
        assert_eq!(reads("has(host.x) && host['y-z'] == name"), ["@name", "x", "y-z"]);
        assert_eq!(reads("facts.vm.ip == '1' || size(facts) > 2"), ["@facts", "@facts.vm"]);
        assert_eq!(reads("size(host) > 3"), ["@host"]);
        // An absolute name is the host's, whatever a variable around it is called.
        assert_eq!(reads("[1].exists(facts, .facts.puppet.os.family == 'Debian')"), ["@facts.puppet"]);
        assert_eq!(reads("[1].exists(site, .site == 'rdu3')"), ["site"]);
        assert!(selects("[1].exists(site, .site == 'rdu3')", r#"{"site":"rdu3"}"#));
        assert!(selects("[1].exists(facts, .facts.vm.ip == '192.0.2.1')", "{}"));
        assert_eq!(reads("[1].exists(site, site == 1)"), [""; 0]);
        let needs =
            |rule: &str| Rule::compile(rule).unwrap().needs().map(|(f, v)| (f.to_string(), v.join(",")));
        assert_eq!(needs("state == 'active' && 'x' == site && cpus > 4"), Some(("site".into(), "x".into())));
        assert_eq!(needs("site in ['a', 'b'] && cpus > 4"), Some(("site".into(), "a,b".into())));
        assert_eq!(needs("site == 'x' || cpus > 4"), None);
        assert_eq!(needs("facts.vm == 'x' || a.b == 'x'"), None);
        assert_eq!(needs("a.b == 'x'"), None);
    }

    #[test]
    fn what_does_not_compile_says_where() {
        let error = |rule: &str| Rule::compile(rule).unwrap_err().to_string();
        insta::assert_snapshot!(error("site == "), @r#"
the rule "site == " does not compile: column 9: Syntax error: it ends too early
  site == 
          ^
"#);
        insta::assert_snapshot!(error("site = 'x'"), @r#"
the rule "site = 'x'" does not compile: column 6: there is no `=`: write `==` to compare
  site = 'x'
       ^
"#);
        insta::assert_snapshot!(error("lower(site) == 'x'"), @r#"
the rule "lower(site) == 'x'" does not compile: column 1: there is no function lower()
  lower(site) == 'x'
  ^
"#);
        assert!(Rule::compile("a.all(x, a.all(y, a.all(z, z)))").is_err());
    }

    #[test]
    fn evaluation_is_bounded() {
        let many = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(30_000));
        assert!(selects("a.all(x, x == 1)", &many));
        let judged = Rule::compile("a.all(x, a.all(y, x == y))").unwrap();
        assert!(judged.judge(&Subject::new(&host(&many), &[])).unwrap_err().contains("steps"));
    }

    #[test]
    fn a_rule_that_fails_says_neither_yes_nor_no() {
        let judge = |rule: &str| {
            let host = host(r#"{"memory":"much","a":{"b":1},"roles":[]}"#);
            Rule::compile(rule).unwrap().judge(&Subject::new(&host, &[]))
        };
        for rule in ["memory > 4", "memory", "memory + 1 == 5", "'x' in memory", "1 / (a.b - 1) == 1"] {
            assert!(judge(rule).is_err(), "{rule}");
        }
        for rule in ["disk > 4", "a.c > 4", "facts.vm.up", "roles[0] == 'web'", "environment < 'x'"] {
            assert_eq!(judge(rule), Ok(false), "{rule}");
        }
        assert_eq!(judge("memory > 4 || a.b == 1"), Ok(true));
    }
}
