// Package e2e proves hookline from outside: real processes, real Kafka, the
// real ClickHouse engine, an endpoint that writes down what it got, and a
// checker that believes none of hookline's own counts.
//
// It has tests only. The harness:
//
//	plan     who subscribes to what, which events there are, how endpoints behave
//	ledger   what the endpoints got, in the order of arrival; dead letters; acked events
//	check    what the ledger says about loss, order, attempts, gaps and duplicates
//	stage    topics, subscriptions, producer and endpoint of one test
//	process  one `hookline run`, to be killed, stopped, frozen
package e2e
