//go:build !linux

package e2e

import "testing"

// tmpfs needs Linux.
func tmpfs(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("mounting a small file system needs Linux")
	return ""
}
