package content

import (
	"crypto/sha1" //nolint:gosec // what a UUID of version 5 is made of; it protects nothing
	"encoding/hex"
)

// notificationSpace is the name space of notification ids (RFC 9562, 5.5):
// 5e1c6b0a-3f0d-5c47-9a52-7d1f0a6c24b9. Changing it changes every id.
const notificationSpace = "\x5e\x1c\x6b\x0a\x3f\x0d\x5c\x47\x9a\x52\x7d\x1f\x0a\x6c\x24\xb9"

// NotificationID is the id of the notification that a delivery carries, for
// formats whose receivers expect one for each notification and subscription: a
// UUID of version 5, made of the delivery's id.
func NotificationID(deliveryID string) string {
	sum := sha1.Sum([]byte(notificationSpace + deliveryID)) //nolint:gosec // see above
	sum[6] = sum[6]&0x0f | 0x50
	sum[8] = sum[8]&0x3f | 0x80
	out := make([]byte, 0, 36)
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			out = append(out, '-')
		}
		start := [...]int{0, 4, 6, 8, 10}[i]
		out = hex.AppendEncode(out, sum[start:end])
	}
	return string(out)
}
