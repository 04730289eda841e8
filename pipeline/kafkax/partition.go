package kafkax

// Partition gives the partition that a subscription lives in, of n, as Kafka's
// default partitioner (murmur2 of the key) would choose it. Every producer of
// deliveries, retry.*, parked, lanes and dead uses it with a ManualPartitioner.
// n must be positive.
func Partition(subscriptionID string, n int32) int32 {
	return int32(murmur2(subscriptionID)&0x7fffffff) % n
}

// murmur2 is Kafka's hash, org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(s string) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(s))
	for ; len(s) >= 4; s = s[4:] {
		k := uint32(s[3])<<24 | uint32(s[2])<<16 | uint32(s[1])<<8 | uint32(s[0])
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(s) {
	case 3:
		h ^= uint32(s[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(s[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(s[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
