//! Stores around other stores: what one of them does not do otherwise, the store within it does.

/// Has the store in a field answer these methods: `forward!(0: head, read);` within `impl Store for` a type of that field.
///
/// It knows the methods without which nothing is a [`Store`](crate::Store); who calls it has [`shoal_core`] at hand. Costs nothing but the call.
#[macro_export]
macro_rules! forward {
    ($field:tt: $($method:ident),* $(,)?) => {
        $($crate::forward!(@ $field $method);)*
    };
    (@ $field:tt head) => { $crate::forward!(@ $field head() -> $crate::Head); };
    (@ $field:tt read) => { $crate::forward!(@ $field read(query: &$crate::Query) -> $crate::Page); };
    (@ $field:tt commit) => {
        $crate::forward!(@ $field commit(commit: ::shoal_core::Commit) -> ::shoal_core::Committed);
    };
    (@ $field:tt log) => {
        $crate::forward!(@ $field log(
            range: &::shoal_core::Range, before: Option<::shoal_core::Revision>, limit: usize
        ) -> Vec<::shoal_core::LogEntry>);
    };
    (@ $field:tt watch) => {
        fn watch(
            &self,
            filter: $crate::Filter,
            after: $crate::Position,
        ) -> $crate::Flow<$crate::Result<$crate::Feed>> {
            self.$field.watch(filter, after)
        }
    };
    (@ $field:tt claim) => {
        $crate::forward!(@ $field claim(want: &$crate::ClaimRequest) -> $crate::ClaimAnswer);
    };
    (@ $field:tt release) => { $crate::forward!(@ $field release(claim: &$crate::Claim) -> ()); };
    (@ $field:tt claims) => { $crate::forward!(@ $field claims(prefix: &str) -> Vec<$crate::Claim>); };
    (@ $field:tt ledger) => {
        $crate::forward!(@ $field ledger(
            prefix: &str, after: Option<&str>, limit: usize
        ) -> $crate::LedgerPage);
    };
    (@ $field:tt write_ledger) => {
        $crate::forward!(@ $field write_ledger(
            rows: Vec<$crate::LedgerWrite>, held: &$crate::Claim
        ) -> ());
    };
    (@ $field:tt report) => { $crate::forward!(@ $field report(status: ::shoal_core::Status) -> ()); };
    (@ $field:tt reports) => { $crate::forward!(@ $field reports() -> Vec<::shoal_core::Status>); };
    (@ $field:tt $method:ident($($name:ident: $type:ty),*) -> $answer:ty) => {
        fn $method(&self $(, $name: $type)*) -> $crate::Fut<'_, $crate::Result<$answer>> {
            self.$field.$method($($name),*)
        }
    };
}
