package suite

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is a connection of HTTP/2 whose user sends frame by frame.
type wire struct {
	t      *testing.T
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	next   uint32
}

func (s *server) wire() *wire {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.address)
	check(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	check(s.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	check(s.t, err)
	own := &wire{t: s.t, framer: http2.NewFramer(conn, conn), next: 1}
	own.hpack = hpack.NewEncoder(&own.block)
	own.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	check(s.t, own.framer.WriteSettings())
	return own
}

// call begins one, with a message and, beside those that all have, some headers.
func (w *wire) call(path string, message []byte, others ...[2]string) {
	w.t.Helper()
	w.block.Reset()
	fields := [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	}
	for _, field := range append(fields, others...) {
		check(w.t, w.hpack.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	check(w.t, w.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: w.next, BlockFragment: w.block.Bytes(), EndHeaders: true,
	}))
	check(w.t, w.framer.WriteData(w.next, false, append([]byte{0, 0, 0, 0, byte(len(message))}, message...)))
	w.next += 2
}

// until reads frames until one is as wanted.
func (w *wire) until(what string, wanted func(http2.Frame) bool) {
	w.t.Helper()
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		if goAway, is := frame.(*http2.GoAwayFrame); is && !wanted(frame) {
			w.t.Fatalf("%s: sent away with %v %q", what, goAway.ErrCode, goAway.DebugData())
		}
		if wanted(frame) {
			return
		}
	}
}

// Who pings again and again without being told anything is sent away, as by a real etcd.
func TestAFloodOfPingsEndsAConnection(t *testing.T) {
	server := start(t)
	for _, hasStream := range []bool{false, true} {
		own := server.wire()
		if hasStream {
			own.call("/etcdserverpb.Watch/Watch", []byte{0x0a, 3, 0x0a, 1, 'k'})
			own.until("the creation", func(frame http2.Frame) bool {
				_, is := frame.(*http2.DataFrame)
				return is
			})
		}
		for range 8 {
			if own.framer.WritePing(false, [8]byte{1}) != nil {
				break
			}
		}
		own.until("the end", func(frame http2.Frame) bool {
			goAway, is := frame.(*http2.GoAwayFrame)
			return is && goAway.ErrCode == http2.ErrCodeEnhanceYourCalm && string(goAway.DebugData()) == "too_many_pings"
		})
		// It is closed, soon.
		begin := time.Now()
		for {
			if _, err := own.framer.ReadFrame(); err != nil {
				break
			}
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Fatalf("the connection was closed %v later", took)
		}
	}
}

// Clients of gRPC measure the line with pings, behind what they are sent.
func TestPingsBesideCallsAreAnswered(t *testing.T) {
	own := start(t).wire()
	for range 100 {
		check(t, own.framer.WritePing(false, [8]byte{2}))
		own.call("/etcdserverpb.KV/Range", []byte{0x0a, 1, 'k'})
		hasPong, hasEnd := false, false
		own.until("an answer", func(frame http2.Frame) bool {
			switch frame := frame.(type) {
			case *http2.PingFrame:
				hasPong = hasPong || frame.IsAck()
			case *http2.MetaHeadersFrame:
				hasEnd = hasEnd || frame.StreamEnded()
			}
			return hasPong && hasEnd
		})
	}
}
