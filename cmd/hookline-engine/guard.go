package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard keeps web pages away from an engine on a loopback address: it has no
// passwords, and a browser would carry a page's request to it. Pages betray
// themselves by a host name that was made to point here, or by Sec-Fetch-Site.
func guard(addr net.Addr, next http.Handler) http.Handler {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		if !isLocalHost(r.Host) || site == "cross-site" || site == "same-site" {
			http.Error(w, "hookline-engine: refusing a request that comes from a web page or for the host "+r.Host+" (use 127.0.0.1 or localhost)", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLocalHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
