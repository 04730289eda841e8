package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/sender/netguard"
)

// errProtocol is an answer that is not HTTP as we accept it. Its text never
// quotes the answer.
type errProtocol string

func (e errProtocol) Error() string { return string(e) }

// localErrnos are the errors that the machine's own limits cause.
var localErrnos = [...]syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENOMEM,
	syscall.ENOBUFS, syscall.EACCES, syscall.EPERM, syscall.EAFNOSUPPORT, syscall.EADDRINUSE,
}

func isLocal(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	for _, local := range localErrnos {
		if errno == local {
			return true
		}
	}
	return false
}

// isTimeout tells whether the try's time limit ended the operation.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// verdict is an error in the words of the log.
type verdict struct {
	outcome pipeline.Outcome
	text    string
}

// classify turns the error of a try into its outcome and text. limit is the
// try's time limit as text. No text quotes what the receiver sent.
func classify(at phase, err error, limit string) verdict {
	var (
		dial    *dialError
		blocked *netguard.BlockedError
		proto   errProtocol
	)
	where := ""
	if errors.As(err, &dial) {
		at, where = dial.phase, " "+dial.where
	}
	switch {
	case errors.As(err, &blocked):
		return verdict{pipeline.OutcomeBlocked, blocked.Error()}
	case errors.As(err, &proto):
		return verdict{pipeline.OutcomeProtocolError, string(proto)}
	case errors.Is(err, errNotFresh), errors.Is(err, errPoolFull), errors.Is(err, errClosed), errors.Is(err, errDialSlots):
		return verdict{pipeline.OutcomeLocalError, rootText(err)}
	}
	switch at {
	case phaseDNS:
		return classifyDNS(err, where)
	case phaseTLS:
		return classifyTLS(err, limit)
	case phaseConnect:
		return classifyConnect(err, where)
	case phaseWrite, phaseRead:
	}
	return classifyExchange(at, err, limit)
}

func rootText(err error) string {
	for _, e := range []error{errNotFresh, errPoolFull, errClosed, errDialSlots} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return "unknown"
}

func classifyDNS(err error, where string) verdict {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return verdict{pipeline.OutcomeDNSError, "getaddrinfo ENOTFOUND" + where}
	case errors.Is(err, errNameFails):
		return verdict{pipeline.OutcomeDNSError, "getaddrinfo EAI_AGAIN" + where}
	default:
		return verdict{pipeline.OutcomeLocalError, "getaddrinfo EAI_AGAIN" + where + ": resolver does not answer"}
	}
}

func classifyConnect(err error, where string) verdict {
	var errno syscall.Errno
	switch {
	case isLocal(err):
		return verdict{pipeline.OutcomeLocalError, "connect " + errnoName(err) + where}
	case errors.Is(err, syscall.ETIMEDOUT):
		return verdict{pipeline.OutcomeTimeout, "connect ETIMEDOUT" + where}
	case errors.As(err, &errno):
		return verdict{pipeline.OutcomeConnectError, "connect " + errnoName(err) + where}
	default:
		return verdict{pipeline.OutcomeConnectError, "connect failed" + where}
	}
}

func classifyTLS(err error, limit string) verdict {
	switch {
	case isTimeout(err):
		return verdict{pipeline.OutcomeTimeout, "request timeout " + limit + ": in the TLS handshake"}
	case isLocal(err):
		return verdict{pipeline.OutcomeLocalError, "connect " + errnoName(err)}
	}
	return verdict{pipeline.OutcomeTLSError, tlsText(err)}
}

// tlsText names a failed handshake in the words that receivers' operators will
// search for. Names out of certificates are not quoted.
func tlsText(err error) string {
	var (
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "certificate has expired"
	case errors.As(err, &invalid):
		return "certificate is not valid"
	case errors.As(err, &hostname):
		return "Hostname/IP does not match certificate's altnames"
	case errors.As(err, &authority):
		if c := authority.Cert; c != nil && c.Issuer.String() == c.Subject.String() {
			return "self-signed certificate"
		}
		return "unable to verify the first certificate"
	case tlsAlert(err) != "":
		return tlsAlert(err)
	case errors.As(err, &record):
		return "TLS handshake failed: the receiver does not speak TLS"
	case isReset(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "client network socket disconnected before secure TLS connection was established"
	default:
		return "TLS handshake failed (TLS 1.2 or newer is required)"
	}
}

// tlsAlert names an alert that either side raised; crypto/tls wraps them so, and
// their texts are its own. Empty for other errors.
func tlsAlert(err error) string {
	var op *net.OpError
	switch {
	case !errors.As(err, &op):
		return ""
	case op.Op == "remote error":
		return "TLS refused by the receiver: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	case op.Op == "local error":
		return "TLS failed: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	return ""
}

func classifyExchange(at phase, err error, limit string) verdict {
	switch {
	case isTimeout(err):
		return verdict{pipeline.OutcomeTimeout, "request timeout " + limit}
	case isLocal(err):
		return verdict{pipeline.OutcomeLocalError, string(at) + " " + errnoName(err)}
	case isReset(err):
		return verdict{pipeline.OutcomeConnectError, string(at) + " " + errnoName(err)}
	case tlsAlert(err) != "":
		return verdict{pipeline.OutcomeTLSError, tlsAlert(err)}
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return verdict{pipeline.OutcomeConnectError, "socket hang up"}
	default:
		return verdict{pipeline.OutcomeConnectError, string(at) + " failed"}
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

// errnoNames has the errors that a TCP connection may end with.
var errnoNames = map[syscall.Errno]string{
	syscall.ECONNREFUSED: "ECONNREFUSED", syscall.ECONNRESET: "ECONNRESET", syscall.ECONNABORTED: "ECONNABORTED",
	syscall.EPIPE: "EPIPE", syscall.ETIMEDOUT: "ETIMEDOUT", syscall.EHOSTUNREACH: "EHOSTUNREACH",
	syscall.EHOSTDOWN: "EHOSTDOWN", syscall.ENETUNREACH: "ENETUNREACH", syscall.ENETDOWN: "ENETDOWN",
	syscall.ENETRESET: "ENETRESET", syscall.EMFILE: "EMFILE", syscall.ENFILE: "ENFILE",
	syscall.EADDRNOTAVAIL: "EADDRNOTAVAIL", syscall.EADDRINUSE: "EADDRINUSE", syscall.ENOMEM: "ENOMEM",
	syscall.ENOBUFS: "ENOBUFS", syscall.EACCES: "EACCES", syscall.EPERM: "EPERM",
	syscall.EAFNOSUPPORT: "EAFNOSUPPORT", syscall.EPROTO: "EPROTO",
}

func errnoName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if name, ok := errnoNames[errno]; ok {
			return name
		}
	}
	return "EIO"
}
