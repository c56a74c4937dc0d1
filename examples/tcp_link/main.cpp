// SPDX-License-Identifier: Apache-2.0
// A network link in a process: forwards TCP connections from one port of this machine to another. Kill it to cut the
// link, start it again to heal it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

int check(int result, char const* call) {
    if (result < 0) {
        throw std::runtime_error(std::string(call) + ": " + std::strerror(errno));
    }
    return result;
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int new_socket() {
    auto const socket = check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    int const on = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return socket;
}

// Until one end closes; then the other one is closed too.
void carry(int from, int to) {
    std::array<char, 1U << 16U> buffer{};
    for (;;) {
        auto const got = ::recv(from, buffer.data(), buffer.size(), 0);
        if (got <= 0) {
            break;
        }
        for (ssize_t sent = 0; sent < got;) {
            auto const count = ::send(to, buffer.data() + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
            if (count <= 0) {
                ::shutdown(from, SHUT_RDWR);
                break;
            }
            sent += count;
        }
    }
    ::shutdown(from, SHUT_RDWR);
    ::shutdown(to, SHUT_RDWR);
}

void connect_through(int near, std::uint16_t port) {
    auto const far = new_socket();
    auto const address = loopback(port);
    if (::connect(far, reinterpret_cast<sockaddr const*>(&address), sizeof(address)) == 0) {
        std::thread back([near, far] { carry(far, near); });
        carry(near, far);
        back.join();
    }
    ::close(far);
    ::close(near);
}

std::uint16_t port_argument(char const* text) {
    std::size_t used = 0;
    auto const number = std::stoul(text, &used);
    if (text[used] != '\0' || number == 0 || number > 65535) {
        throw std::invalid_argument(text);
    }
    return static_cast<std::uint16_t>(number);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: tcp_link <port to listen on> <port to lead to>\n";
        return 2;
    }
    try {
        auto const to = port_argument(argv[2]);
        auto const listener = new_socket();
        auto const address = loopback(port_argument(argv[1]));
        check(::bind(listener, reinterpret_cast<sockaddr const*>(&address), sizeof(address)), "bind");
        check(::listen(listener, SOMAXCONN), "listen");
        for (;;) {
            auto const near = check(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), "accept");
            std::thread(connect_through, near, to).detach();
        }
    } catch (std::exception const& error) {
        std::cerr << "tcp_link: " << error.what() << '\n';
        return 1;
    }
}
