// Package logshape writes attempts of the delivery log in the shapes that the
// systems which the events come from publish: Cotalker's COTWebhookLog and
// goflow's webhook_called. The ClickHouse views cot_webhook_log and
// webhook_called give the same values; a test of package sink holds both
// together.
package logshape
