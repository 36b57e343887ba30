//! The routes of both listeners as one type, and both kinds of connection as another, so that the machinery of HTTP/1.1 and
//! HTTP/2 under them is in the binary once and not once for each combination.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{Either as EitherFuture, Map};
use http::{Request, Response};
use http_body_util::Either as EitherBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use crate::body::RequestBody;
use crate::dispatch::App;

/// The routes of one of the two listeners.
#[derive(Clone)]
pub(crate) enum Routes<A, N> {
    /// Of the main one.
    Primary(A),
    /// Of the read-only one.
    ReadOnly(N),
}

type Answer<B> = Result<Response<B>, Infallible>;
type BodyOf<A, N> = EitherBody<<A as App>::Body, <N as App>::Body>;
type Wrap<B, E> = fn(Answer<B>) -> Answer<E>;

impl<A: App, N: App> Service<Request<RequestBody>> for Routes<A, N> {
    type Response = Response<BodyOf<A, N>>;
    type Error = Infallible;
    type Future = EitherFuture<
        Map<A::Future, Wrap<A::Body, BodyOf<A, N>>>,
        Map<N::Future, Wrap<N::Body, BodyOf<A, N>>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        match self {
            Self::Primary(app) => EitherFuture::Left(
                app.answer(request).map(|answer| answer.map(|response| response.map(EitherBody::Left))),
            ),
            Self::ReadOnly(app) => EitherFuture::Right(
                app.answer(request).map(|answer| answer.map(|response| response.map(EitherBody::Right))),
            ),
        }
    }
}

/// What a connection is made of.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
