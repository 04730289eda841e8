// Package registry keeps the subscriptions: it reads what people write (YAML or
// JSON documents), stores it in the topic "subscriptions", and turns that topic
// into an immutable Snapshot that the router and the dispatcher work by.
//
// The topic has one partition and is compacted; the offset of the last record
// read is the registry's version. Each subscription has two keys: its id, for
// what people configure, and id#state, for what hookline and its operators
// decide. A state names the revision of the configuration that it applies to
// and is ignored for any other.
//
// Writers exclude each other by a transactional id: whoever starts later fences
// the earlier one, whose transaction then fails as a whole with ErrConflict. So
// a writer that commits has seen everything that was committed before it began,
// and nothing was written in between.
package registry
