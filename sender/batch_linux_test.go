package sender

import "testing"

func TestWholeAnswers(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"HTTP/1.1 200 OK\r\ncontent-length:  2 \r\nX: 1\r\n\r\nok", true},
		{"HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n", true},
		{"HTTP/1.1 204 No Content\r\n\r\n", true},
		{"HTTP/1.1 304 Not Modified\r\n\r\n", true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", true}, // what is too much is found later
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", false},
		{"HTTP/1.1 200 OK\r\n\r\n", false},
		{"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", false},
		{"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n", false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", false},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"H", false},
		{"", false},
		{"\r\n\r\n", false},
	} {
		if got := whole([]byte(tt.answer)); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.answer, got, tt.want)
		}
	}
}
