//! `wasi:sockets` for components that were granted bare connections: TCP, from here to elsewhere, and names of granted hosts.
//!
//! The library's sockets are used, and asked for nothing before [`Connections`] said that the guest may: a name is looked up
//! there, an address is judged there, and the library's own check of addresses asks there once more. Nothing is bound or listened on. UDP
//! is linked, because the libraries of languages import it beside TCP, and no socket of it can be made.
#![allow(unreachable_pub, reason = "traits of generated bindings are implemented for these types")]

mod streams;

use std::sync::Arc;

use futures_util::FutureExt as _;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, LinkOptions, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, HostTcpSocket, ShutdownType, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, network, tcp_create_socket, udp, udp_create_socket,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, Pollable, SocketError, SocketResult, subscribe,
};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsCtxView, WasiSocketsView as _};
use wasmtime_wasi_io::async_trait;

use self::streams::{Receiving, Sending};
use super::wasi;
use crate::egress::{Connections, Found, Refused};
use crate::runtime::{GuestState, Rated};

/// Largest buffer of the kernel that a guest may ask for, bytes each way.
const MAX_BUFFER: u64 = 256 << 10;

const INTERFACES: &[&str] = &[
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Whether an import is an interface of sockets.
pub(super) fn is_linked(import: &str) -> bool {
    wasi::is_among(INTERFACES, import)
}

/// Links [`INTERFACES`].
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    type State = GuestState;
    instance_network::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    network::add_to_linker::<State, WasiSockets>(linker, &LinkOptions::default(), State::sockets)?;
    ip_name_lookup::add_to_linker::<State, TcpOfGuest>(linker, Tcp::of)?;
    tcp::add_to_linker::<State, TcpOfGuest>(linker, Tcp::of)?;
    tcp_create_socket::add_to_linker::<State, TcpOfGuest>(linker, Tcp::of)?;
    udp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    udp_create_socket::add_to_linker::<State, WasiSockets>(linker, State::sockets)
}

/// Lets the library make sockets, and connect them to what was found to be granted.
pub(super) fn allow(builder: &mut WasiCtxBuilder, connections: &Arc<Connections>) {
    let connections = Arc::clone(connections);
    builder.allow_tcp(true).allow_udp(false).allow_ip_name_lookup(false).socket_addr_check(
        move |address, use_| {
            let may = match use_ {
                SocketAddrUse::TcpConnect => connections.approves(address),
                // What the system does by itself for a connection.
                SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
                _ => false,
            };
            Box::pin(async move { may })
        },
    );
}

/// Adds what the connections of a call used to its conduct.
pub(super) fn account(state: &mut GuestState, connections: &Connections) {
    let used = connections.used();
    if used.requests > 0 {
        let network = &mut state.conduct().network;
        network.requests = network.requests.saturating_add(used.requests);
        network.sent = network.sent.saturating_add(used.sent);
        network.received = network.received.saturating_add(used.received);
    }
    if connections.ran_out() {
        state.note_refused_by_egress(&Refused::Quota);
    }
}

/// The sockets of a guest.
pub struct Tcp<'a>(&'a mut GuestState);

/// The same, for linkers.
struct TcpOfGuest;

impl HasData for TcpOfGuest {
    type Data<'a> = Tcp<'a>;
}

impl Tcp<'_> {
    fn of(state: &mut GuestState) -> Tcp<'_> {
        Tcp(state)
    }

    fn library(&mut self) -> WasiSocketsCtxView<'_> {
        self.0.sockets()
    }

    fn connections(&mut self) -> SocketResult<Arc<Connections>> {
        self.0.connections().ok_or_else(|| ErrorCode::AccessDenied.into())
    }

    /// Counts a use of the capability, which has a rate whether or not something comes of it.
    fn spend(&mut self) -> SocketResult<()> {
        self.0.spend(Rated::Capability, 0).map_err(|_| ErrorCode::NewSocketLimit.into())
    }

    /// Writes down why, and tells the guest as much as a code can.
    fn refuse(&mut self, refused: &Refused) -> SocketError {
        self.0.note_refused_by_egress(refused);
        match refused {
            Refused::Address(_)
            | Refused::ClearText(_)
            | Refused::Destination(_)
            | Refused::Host(_)
            | Refused::Port(_) => ErrorCode::AccessDenied,
            Refused::Busy | Refused::Quota | Refused::TooLarge(_) => ErrorCode::NewSocketLimit,
            Refused::Malformed(_) => ErrorCode::InvalidArgument,
            Refused::Stopped => ErrorCode::Unknown,
            Refused::TimedOut => ErrorCode::Timeout,
            Refused::Unreachable(_) => ErrorCode::NameUnresolvable,
        }
        .into()
    }
}

impl network::Host for Tcp<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.library(), error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.library(), error)
    }
}

impl network::HostNetwork for Tcp<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.library(), network)
    }
}

/// A question about a name.
enum LookUp {
    Asked(Found),
    Answered(Option<Result<std::vec::IntoIter<std::net::IpAddr>, Refused>>),
    Failed,
}

impl LookUp {
    fn answer(&mut self, found: Result<Vec<std::net::IpAddr>, Refused>) {
        *self = Self::Answered(Some(found.map(Vec::into_iter)));
    }
}

#[async_trait]
impl Pollable for LookUp {
    async fn ready(&mut self) {
        if let Self::Asked(found) = self {
            let found = found.await;
            self.answer(found);
        }
    }
}

impl ip_name_lookup::Host for Tcp<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.library().table.get(&network)?;
        self.spend()?;
        let found = self.connections()?.look_up(&name).map_err(|refused| self.refuse(&refused))?;
        Ok(Resource::new_own(self.library().table.push(LookUp::Asked(found))?.rep()))
    }
}

impl ip_name_lookup::HostResolveAddressStream for Tcp<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let table = self.library().table;
        let look_up = table.get_mut(&look_up_of(&stream))?;
        if let LookUp::Asked(found) = look_up {
            let Some(found) = found.now_or_never() else { return Err(ErrorCode::WouldBlock.into()) };
            look_up.answer(found);
        }
        match look_up {
            LookUp::Answered(Some(Ok(addresses))) => Ok(addresses.next().map(IpAddress::from)),
            LookUp::Answered(answered) => {
                let refused = answered.take().and_then(Result::err);
                *look_up = LookUp::Failed;
                Err(refused.map_or_else(|| ErrorCode::Unknown.into(), |refused| self.refuse(&refused)))
            }
            LookUp::Asked(_) | LookUp::Failed => Err(ErrorCode::NameUnresolvable.into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.library().table, look_up_of(&stream))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.library().table.delete(Resource::<LookUp>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// What lies in the table under the library's name for it.
fn look_up_of(stream: &Resource<ResolveAddressStream>) -> Resource<LookUp> {
    Resource::new_borrow(stream.rep())
}

impl tcp_create_socket::Host for Tcp<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.spend()?;
        let connections = self.connections()?;
        let place = connections.open().map_err(|refused| self.refuse(&refused))?;
        let socket = tcp_create_socket::Host::create_tcp_socket(&mut self.library(), family)?;
        connections.keep(socket.rep(), place);
        Ok(socket)
    }
}

impl tcp::Host for Tcp<'_> {}

impl HostTcpSocket for Tcp<'_> {
    async fn start_bind(
        &mut self,
        _socket: Resource<TcpSocket>,
        _network: Resource<Network>,
        _address: IpSocketAddress,
    ) -> SocketResult<()> {
        Err(ErrorCode::AccessDenied.into())
    }

    fn finish_bind(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.library().finish_bind(socket)
    }

    fn start_connect(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.spend()?;
        self.connections()?.connect(address.into()).map_err(|refused| self.refuse(&refused))?;
        self.library().start_connect(socket, network, address)
    }

    fn finish_connect(
        &mut self,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let connections = self.connections()?;
        let mut library = self.library();
        let borrowed = Resource::<TcpSocket>::new_borrow(socket.rep());
        let (input, output) = library.finish_connect(borrowed)?;
        let (input, output) = (library.table.delete(input)?, library.table.delete(output)?);
        let input: DynInputStream =
            Box::new(Receiving { stream: input, connections: Arc::clone(&connections) });
        let output: DynOutputStream = Box::new(Sending { stream: output, connections });
        Ok((library.table.push_child(input, &socket)?, library.table.push_child(output, &socket)?))
    }

    async fn start_listen(&mut self, _socket: Resource<TcpSocket>) -> SocketResult<()> {
        Err(ErrorCode::AccessDenied.into())
    }

    fn finish_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.library().finish_listen(socket)
    }

    fn accept(
        &mut self,
        _socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        Err(ErrorCode::InvalidState.into())
    }

    fn local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        self.library().local_address(socket)
    }

    fn remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        self.library().remote_address(socket)
    }

    fn is_listening(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.library().is_listening(socket)
    }

    fn address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        self.library().address_family(socket)
    }

    fn set_listen_backlog_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.library().set_listen_backlog_size(socket, value)
    }

    fn keep_alive_enabled(&mut self, socket: Resource<TcpSocket>) -> SocketResult<bool> {
        self.library().keep_alive_enabled(socket)
    }

    fn set_keep_alive_enabled(&mut self, socket: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.library().set_keep_alive_enabled(socket, value)
    }

    fn keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.library().keep_alive_idle_time(socket)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.library().set_keep_alive_idle_time(socket, value)
    }

    fn keep_alive_interval(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.library().keep_alive_interval(socket)
    }

    fn set_keep_alive_interval(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.library().set_keep_alive_interval(socket, value)
    }

    fn keep_alive_count(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u32> {
        self.library().keep_alive_count(socket)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.library().set_keep_alive_count(socket, value)
    }

    fn hop_limit(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u8> {
        self.library().hop_limit(socket)
    }

    fn set_hop_limit(&mut self, socket: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.library().set_hop_limit(socket, value)
    }

    fn receive_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.library().receive_buffer_size(socket)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.library().set_receive_buffer_size(socket, value.min(MAX_BUFFER))
    }

    fn send_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.library().send_buffer_size(socket)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.library().set_send_buffer_size(socket, value.min(MAX_BUFFER))
    }

    fn subscribe(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        HostTcpSocket::subscribe(&mut self.library(), socket)
    }

    fn shutdown(&mut self, socket: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        self.library().shutdown(socket, how)
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        let number = socket.rep();
        HostTcpSocket::drop(&mut self.library(), socket)?;
        if let Some(connections) = self.0.connections() {
            connections.let_go(number);
        }
        Ok(())
    }
}
